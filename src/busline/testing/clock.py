"""A clock that stands still until it is moved."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from busline.core.clock import Timer


class SimTimer:
    """A call at a moment of simulated time."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class SimClock:
    """Implements Clock: `move` fires what falls due, in order. `time` and `ticks` are the same
    number."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now
        self._timers: list[tuple[float, int, SimTimer]] = []
        self._order = count()

    def __repr__(self) -> str:
        return f"<SimClock {self.now:g}, {len(self._timers)} timers>"

    def time(self) -> float:
        return self.now

    def ticks(self) -> float:
        return self.now

    def random(self) -> float:
        return 0.5

    def after(self, delay: float, call: Callable[[], object]) -> Timer:
        timer = SimTimer(call)
        heapq.heappush(self._timers, (self.now + max(delay, 0.0), next(self._order), timer))
        return timer

    async def sleep(self, delay: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.after(delay, lambda: None if done.done() else done.set_result(None))
        try:
            await done
        finally:
            timer.cancel()

    def next(self) -> float | None:
        """When the next call is due; None if nothing waits."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def move(self, seconds: float) -> None:
        """Lets time pass, firing what falls due on the way."""
        target = self.now + seconds
        while (due := self.next()) is not None and due <= target:
            self.now = max(self.now, due)
            timer = heapq.heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                call()
        self.now = max(self.now, target)
