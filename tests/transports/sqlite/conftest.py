"""Transports on one file, closed when the test ends."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from busline.testing.clock import SimClock
from busline.testing.contract import Desk
from busline.transports.sqlite import SqliteTransport


class Engines:
    """Opens transports, each as another process would."""

    def __init__(self, path: Path, clock: SimClock, stack: AsyncExitStack) -> None:
        self.path, self.clock, self._stack = path, clock, stack

    async def open(self) -> SqliteTransport:
        return await self._stack.enter_async_context(SqliteTransport(self.path, clock=self.clock))

    async def desk(self) -> Desk:
        desk = Desk(await self.open(), self.clock)
        self._stack.push_async_callback(desk.stack.aclose)
        return desk

    async def take_for_dead(self) -> SqliteTransport:
        """Another process finds every other one dead: their beats are older than its lease."""
        other = await self.open()
        other.neighbours.lease = -1.0
        await other.neighbours.look()
        other.neighbours.lease = 20.0
        return other


@pytest.fixture
def clock() -> SimClock:
    return SimClock()


@pytest.fixture
async def engines(tmp_path: Path, clock: SimClock) -> AsyncGenerator[Engines]:
    async with AsyncExitStack() as stack:
        yield Engines(tmp_path / "bus.db", clock, stack)
