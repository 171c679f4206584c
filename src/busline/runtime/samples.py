"""What the engines say of an App's queues and groups, asked again and again, so that a thread can tell it at any time."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from busline.core.errors import BuslineError
from busline.core.ports import Depth, Lag
from busline.runtime.bus import Bus

EVERY = 5.0  # seconds


class Samples:
    """The latest answers. `at`: when they came, in monotonic seconds; None before the first.

    `depth`, by queue; `lag`; `frontier`: by group, the seconds since the oldest record that is in hand and not finished was published.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.at: float | None = None
        self.depth: Mapping[str, Depth] = {}
        self.lag: Sequence[Lag] = ()
        self.frontier: Mapping[str, float] = {}

    async def keep(self) -> None:
        """Asks for ever. While an engine is away the latest answers stay."""
        while True:
            with suppress(BuslineError):  # the workers say so
                await self.take()
            await self._bus.clock.sleep(EVERY)

    async def take(self) -> None:
        """Asks once. Raises what the engines raise."""
        jobs, now = self._bus.engines.jobs, self._bus.clock.time()
        depth = {} if jobs is None else await jobs.inspector.depth()
        self.lag = await self._bus.lag()
        self.depth = {name: depth.get(name, Depth()) for name in sorted(self._bus.queues())}
        self.frontier = {worker.work.subscription.group: worker.oldest(now) for worker in self._bus.workers if worker.work.subscription.group}
        self.at = time.monotonic()
