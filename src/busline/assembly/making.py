"""What every handler is made with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from busline.core.attempt import Attempt, Read, bare, step
from busline.core.chain import Middleware, chain
from busline.core.handler import Ending, Invoke
from busline.core.signature import Reader
from busline.middleware.retries import Judge, retries
from busline.router import Router
from busline.runtime.bus import Bus

Functions: TypeAlias = Mapping[Callable[..., Any], Callable[..., Any]]
Watch: TypeAlias = Callable[[str, str | None], Middleware]
"""Makes a layer for a handler, of a group or of none."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process runs of an App: all of it, unless told otherwise. `concurrency` caps what
    runs at once. `create_topics`: missing topics are made."""

    only: Sequence[str] = ()
    queues: Sequence[str] = ()
    concurrency: int | None = None
    create_topics: bool = False


@dataclass(frozen=True, slots=True)
class Making:
    """`replaced`: functions that stand in for others; `watching`: makers of layers around all."""

    bus: Bus
    reader: Reader
    replaced: Functions
    watching: Sequence[Watch]

    def attempt(
        self,
        name: str,
        router: Router,
        judge: Judge,
        read: Read,
        call: tuple[Invoke, Ending],
        group: str | None = None,
    ) -> Attempt:
        """The whole chain around a function."""
        layers = [*(around(name, group) for around in self.watching), *router.layers()]
        if layers:
            return retries(judge, chain(layers, step(read, *call)))
        return bare(read, *call, judge.failed)
