"""What the engines say of an App's queues and groups, asked again and again, so that a thread can
tell it at any time."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from busline.core.errors import BuslineError
from busline.core.ports import Depth, Lag
from busline.core.served import Serves
from busline.runtime.bus import Bus

EVERY = 5.0  # seconds
DEAD_EVERY = 30.0  # seconds: dead letters change seldom, and cost more to count


class Samples:
    """The latest answers. `at`: when they came, in monotonic seconds; None before the first.

    `depth`, by queue; `lag`; `dead`: by handler, the letters that stand; `frontier`: by group, the
    seconds since the oldest record that is in hand and not finished was published."""

    def __init__(self, bus: Bus, serves: Serves) -> None:
        self._bus, self._serves = bus, serves
        self._counted, self._died = float("-inf"), 0
        self.dead: Mapping[str, int] = {}
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
        self.frontier = {
            worker.work.subscription.group: worker.oldest(now)
            for worker in self._bus.workers
            if worker.work.subscription.group
        }
        died = sum(one.dead for one in self._bus.counts.values())  # here
        if died != self._died or time.monotonic() - self._counted >= DEAD_EVERY:
            await self._count_dead()
            self._died = died
        self.at = time.monotonic()

    async def _count_dead(self) -> None:
        found = dict.fromkeys(sorted(self._serves.names()), 0)
        for engine in self._bus.engines.all():
            for one in await engine.inspector.standing(self._serves):
                found[one.handler] = found.get(one.handler, 0) + one.letters
        self.dead, self._counted = found, time.monotonic()
