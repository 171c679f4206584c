"""What one worker is to do."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from busline.core.handler import Handler
from busline.core.ports import Subscription, Transport

UNLIMITED = 1000  # as many at once as there are partitions, however many that turn out to be
DEFAULT_CONCURRENCY = 100
THREADS = 2 * (os.cpu_count() or 1) + 4


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is to do. `handlers`: by the task's name; a stream's only one under the empty
    name. `threads`: how many of those that run in threads run at once."""

    name: str
    transport: Transport
    subscription: Subscription
    handlers: Mapping[str, Handler]
    concurrency: int
    buffer: int
    threads: int = THREADS
    elsewhere: frozenset[str] = frozenset()  # tasks that the App has, and that another process runs
    asked: int | None = None  # the concurrency that the declaration asks for

    @property
    def at_once(self) -> str:
        """How many run at once, in words."""
        return (
            "one for each partition"
            if self.concurrency == UNLIMITED
            else f"{self.concurrency} at once"
        )
