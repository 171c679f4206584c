"""One App on each engine, with a clock that tests move."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from busline import App, DeadLetter, Topic
from busline.app import Setting
from busline.core.counts import Counts
from busline.core.message import encode_key
from busline.core.ports import Transport
from busline.runtime.bus import Engines
from busline.testing.clock import SimClock
from busline.transports.memory import MemoryTransport
from busline.transports.sqlite import SqliteTransport

Functions = Mapping[Callable[..., Any], Callable[..., Any]]


class Story:
    """An App that runs: what goes in, what came out, and time."""

    def __init__(self, app: App, transport: Transport, clock: SimClock) -> None:
        self.app, self.transport, self.clock = app, transport, clock

    async def publish(self, topic: Topic[Any], value: Any, **options: Any) -> None:
        await self.app.publish(topic, value, **options)
        await self.settled()

    async def deliver(self, topic: Topic[Any], body: bytes | None, key: str | None = None, headers: Sequence[tuple[str, bytes | None]] = ()) -> None:
        await self.transport.publish(topic.address, [self.app.bus().message(body, key=encode_key(key), headers=tuple(headers))])
        await self.settled()

    async def settled(self) -> None:
        """Returns when nothing runs and nothing is due."""
        async with asyncio.timeout(20):
            still = 0
            while still < 3:
                still = still + 1 if await self._quiet() else 0
                await asyncio.sleep(0.001)

    async def _quiet(self) -> bool:
        workers = self.app.bus().workers
        if any(worker.busy for worker in workers):
            return False
        depth = await self.transport.inspector.depth()
        behind = sum(one.behind for one in await self.transport.inspector.lag())
        held = sum(worker._held for worker in workers)  # behind a retry that waits in its lane
        return not any(one.waiting or one.running for one in depth.values()) and behind <= held

    async def advance(self, by: float) -> None:
        target = self.clock.now + by
        await self.settled()
        while (due := self.clock.next()) is not None and due <= target:
            self.clock.move(due - self.clock.now)
            for _ in range(5):
                await asyncio.sleep(0.001)
            await self.settled()
        self.clock.move(target - self.clock.now)
        await self.settled()

    async def dead(self) -> Sequence[DeadLetter]:
        return await self.transport.inspector.dead()

    async def redrive(self) -> int:
        done = await self.transport.inspector.redrive([one.id for one in await self.dead()])
        await self.settled()
        return done.again

    def counts(self, name: str) -> Counts:
        return self.app.bus().counts.get(name, Counts())


Tell = Callable[..., Any]


@pytest.fixture(params=["memory", "sqlite"])
def tell(request: pytest.FixtureRequest, tmp_path: Path) -> Tell:
    """`async with tell(app) as story`: the App, running on an engine of this kind, in the same file each time."""

    @asynccontextmanager
    async def tell(app: App, override: Functions | None = None) -> AsyncGenerator[Story]:
        clock = SimClock()
        transport: Transport = MemoryTransport(clock) if request.param == "memory" else SqliteTransport(tmp_path / "bus.db", clock=clock)
        async with app.running_with(Setting(Engines(transport, transport), clock, dict(override or {}), drain=2.0, cancel=1.0)):
            yield Story(app, transport, clock)

    return tell
