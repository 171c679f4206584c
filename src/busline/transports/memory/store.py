"""Facts, until their time is over."""

import asyncio
from collections.abc import Sequence
from functools import partial

from busline.core.clock import Clock


class MemoryStore:
    """Facts by key, until their time is over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._facts: dict[str, tuple[bytes, float]] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def look(self, key: str) -> bytes | None:
        value, until = self._facts.get(key, (b"", 0.0))
        return value if until > self._clock.time() else None

    def keep(self, key: str, value: bytes, ttl: float) -> None:
        self._facts[key] = value, self._clock.time() + ttl
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def forget(self, key: str) -> None:
        self._facts.pop(key, None)

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        return [self.look(key) for key in keys]

    async def put(self, key: str, value: bytes, ttl: float, *, absent: bool = False) -> bool:
        if absent and self.look(key) is not None:
            return False
        self.keep(key, value, ttl)
        return True

    async def wait(self, key: str, until: float | None) -> bytes | None:
        while (value := self.look(key)) is None and (until is None or self._clock.ticks() < until):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(key, set()).add(waiter)
            timer = (
                None
                if until is None
                else self._clock.after(until - self._clock.ticks(), partial(_wake, waiter))
            )
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
                self._leave(key, waiter)
        return value

    def _leave(self, key: str, waiter: "asyncio.Future[None]") -> None:
        if (waiting := self._waiters.get(key)) is not None:
            waiting.discard(waiter)
            if not waiting:
                del self._waiters[key]


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
