"""Attacks on a file: workers that are killed each second."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from busline import Sqlite
from busline.core.clock import SystemClock
from busline.core.message import DeadLetter
from busline.core.ports import Depth, Inspector
from busline.engine import Engine
from busline.transports.sqlite import SqliteTransport
from tests.faults.attacked import Item, Jobs, Streams, key_of
from tests.faults.field import BUSY, Field
from tests.faults.judge import Promise


class OfJobs(Field):
    """`workers`: the engine as the workers name it."""

    promise = Promise(BUSY, "message")
    app, work = Jobs.PATH, ("--queue", "work", "--concurrency", "50")

    def __init__(self, folder: Path, engine: Engine, workers: str) -> None:
        super().__init__(folder, BUSLINE_JOBS=workers)
        self._engine, self._jobs = engine, Jobs(engine)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        async with self._jobs.app:
            yield

    async def publish(self, numbers: range) -> None:
        await enqueue(self._jobs, numbers)

    async def left(self) -> tuple[int, dict[int, str]]:
        async with self._engine.open(SystemClock()) as engine:
            return await of_queues(engine.inspector)


class FileOfJobs(OfJobs):
    def __init__(self, folder: Path) -> None:
        file = folder / "bus.db"
        super().__init__(folder, Sqlite(file), f"sqlite:///{file}")


class FileOfRecords(Field):
    promise = Promise(BUSY, "message")
    app, work = Streams.PATH, ("--only", "work")

    def __init__(self, folder: Path) -> None:
        self.file = folder / "bus.db"
        super().__init__(folder, BUSLINE_STREAMS=f"sqlite:///{self.file}", ATTACK_MARK="file")
        self._streams = Streams("file", Sqlite(self.file))

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        async with self._streams.app:
            yield

    async def publish(self, numbers: range) -> None:
        await self._streams.app.publish_many(
            self._streams.records, [Item(n=n, key=key_of(n)) for n in numbers]
        )

    async def left(self) -> tuple[int, dict[int, str]]:
        async with SqliteTransport(self.file) as engine:
            lags = await engine.inspector.lag([self._streams.group])
            return sum(one.behind for one in lags), numbered(
                await engine.inspector.dead(limit=10_000)
            )


async def enqueue(jobs: Jobs, numbers: range) -> None:
    """Under ids of their own: sent again, they are found."""
    await jobs.app.enqueue_many(jobs.work.options(id=f"job-{n}").call(n) for n in numbers)


async def of_queues(inspector: Inspector) -> tuple[int, dict[int, str]]:
    """How many jobs live, and which are dead."""
    depths: Iterable[Depth] = (await inspector.depth()).values()
    living = sum(one.waiting + one.delayed + one.retrying + one.running for one in depths)
    return living, numbered(await inspector.dead(limit=10_000))


def numbered(letters: Iterable[DeadLetter]) -> dict[int, str]:
    """The reasons by the numbers of what is dead: a job's id has it, a record's body."""
    return {_number(one): one.reason for one in letters}


def _number(letter: DeadLetter) -> int:
    if letter.position is None:
        return int(letter.id.rpartition("-")[2])
    return Item.model_validate_json(letter.body or b"").n


async def kill_each_second(field: Field) -> None:
    await asyncio.sleep(1)
    await field.kill()
