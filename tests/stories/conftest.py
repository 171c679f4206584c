"""One App on each pair of engines, with a clock that tests move."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from busline import App, DeadLetter, Kafka, Topic
from busline.app import Setting
from busline.core.counts import Counts
from busline.core.message import encode_key
from busline.runtime.engines import Engines
from busline.testing.clock import SimClock
from tests.servers import Servers
from tests.servers.kafka import no_topics

Functions = Mapping[Callable[..., Any], Callable[..., Any]]
STREAMS, JOBS = ("memory", "sqlite", "kafka"), ("memory", "sqlite", "redis")


def pair(streams: str, jobs: str) -> Any:
    """A pair of engines, as a parameter: `streams+jobs`."""
    server = {"kafka", "redis"} & {streams, jobs}
    return pytest.param(f"{streams}+{jobs}", marks=pytest.mark.server if server else ())


PAIRS = [pair("memory", "memory"), pair("sqlite", "sqlite"), pair("kafka", "redis")]
EVERY_PAIR = [pair(streams, jobs) for streams in STREAMS for jobs in JOBS]


class Story:
    """An App that runs: what goes in, what came out, and time."""

    def __init__(self, app: App, engines: Engines, clock: SimClock) -> None:
        assert engines.streams is not None and engines.jobs is not None
        self.app, self.engines, self.clock = app, engines, clock
        self.streams, self.jobs = engines.streams, engines.jobs

    async def publish(self, topic: Topic[Any], value: Any, **options: Any) -> None:
        await self.app.publish(topic, value, **options)
        await self.settled()

    async def deliver(
        self,
        topic: Topic[Any],
        body: bytes | None,
        key: str | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        await self.streams.publish(
            topic.address,
            [self.app.bus().message(body, key=encode_key(key), headers=tuple(headers))],
        )
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
        depth = await self.jobs.inspector.depth()
        behind = sum(
            [
                one.behind
                for engine in self.engines.all()
                for one in await engine.inspector.lag(self.app.groups())
            ]
        )
        held = sum(worker.held for worker in workers)  # behind a retry that waits in its lane
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
        return [one for engine in self.engines.all() for one in await engine.inspector.dead()]

    async def redrive(self) -> int:
        again = 0
        found = [
            (engine, [one.id for one in await engine.inspector.dead()])
            for engine in self.engines.all()
        ]
        for engine, ids in found:  # all of them before: one may die again meanwhile
            again += (await self.app.bus().redrive(engine, ids)).again
        await self.settled()
        return again

    def counts(self, name: str) -> Counts:
        return self.app.bus().counts.get(name, Counts())


Tell = Callable[..., Any]


@pytest.fixture(params=PAIRS)
def tell(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Tell:
    """`async with tell(app) as story`: the App, running on a pair of engines, the same ones each
    time."""
    streams, jobs = servers.pair(request.param, tmp_path / "bus.db")
    begun: list[bool] = []

    @asynccontextmanager
    async def tell(
        app: App, override: Functions | None = None, tracer_provider: Any = None
    ) -> AsyncGenerator[Story]:
        clock = SimClock()
        if isinstance(streams, Kafka) and not begun:
            await no_topics(*streams.servers)
        begun.append(True)
        opened = {
            name: engine.open(clock) for name, engine in (("streams", streams), ("jobs", jobs))
        }
        engines = Engines(
            opened["streams"], opened["streams"] if streams == jobs else opened["jobs"]
        )
        async with app.running_with(
            Setting(
                engines,
                clock,
                dict(override or {}),
                drain=2.0,
                cancel=1.0,
                tracer_provider=tracer_provider,
            )
        ):
            yield Story(app, engines, clock)

    return tell
