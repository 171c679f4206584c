"""Jobs that fall due while workers are killed, the file is locked and the disk is full: each runs,
the others stay."""

import asyncio
import os
import random
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent

from busline import App
from busline.transports.sqlite import SqliteTransport
from tests.errors.test_files import mounted
from tests.faults.started import started

COUNT = 503
APP = """
    import os
    from busline import App

    app = App("due", jobs=os.environ["FILE"])

    @app.task
    async def tick(n: int) -> None:
        with open(os.environ["LEDGER"], "a") as ledger:
            ledger.write(f"{n}\\n")

    @app.task(queue="other")
    async def stay(n: int) -> None:
        raise AssertionError("nobody serves this queue")
"""
declared = App("due")


@declared.task
async def tick(n: int) -> None: ...


@declared.task(queue="other")
async def stay(n: int) -> None: ...


class Due:
    """A file with jobs that fall due in two seconds, and what ran of them."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.folder, self.file, self.ledger = folder, file, folder / "ledger"
        self.ledger.touch()
        (folder / "due.py").write_text(dedent(APP))
        path = os.pathsep.join([str(folder), *sys.path])
        self.environment = {
            **os.environ,
            "FILE": f"sqlite:///{file}",
            "LEDGER": str(self.ledger),
            "PYTHONPATH": path,
        }

    async def fill(self) -> None:
        app = App("due", jobs=f"sqlite:///{self.file}")
        due, other = app.task(tick.function), app.task(queue="other")(stay.function)
        async with app:
            await app.enqueue_many(due.options(delay=2).call(n) for n in range(COUNT))
            await due.options(delay=3600).enqueue(-1)
            await app.enqueue_many(other.call(n) for n in range(10))

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[asyncio.subprocess.Process]:
        async with started(
            "due:app",
            "--queue",
            "due",
            "--concurrency",
            "5",
            folder=self.folder,
            env=self.environment,
        ) as worker:
            yield worker.process
        self.said = worker.said

    async def where(self) -> tuple[int, int, int]:
        """How many of the jobs that fall due live, how many are for later, how many are in the
        other queue."""
        async with SqliteTransport(self.file) as engine:
            depth = await engine.inspector.depth()
            assert await engine.inspector.dead() == []
        due = depth["due"]
        return (
            due.waiting + due.delayed + due.retrying + due.running - 1,
            due.delayed,
            depth["other"].waiting,
        )

    def ran(self) -> list[int]:
        return [int(line) for line in self.ledger.read_text().splitlines()]

    async def all_ran(self) -> None:
        async with asyncio.timeout(60):
            while (await self.where())[0] > 0:
                await asyncio.sleep(0.05)
        assert set(self.ran()) == set(range(COUNT))
        assert await self.where() == (0, 1, 10)


async def test_ten_kills_around_the_due_time_lose_none(tmp_path: Path) -> None:
    due, moment = Due(tmp_path, tmp_path / "bus.db"), random.Random(17)
    await due.fill()
    for _ in range(10):
        async with due.worker() as process:
            await asyncio.sleep(moment.uniform(0, 0.4))
            process.kill()
        left, _, other = await due.where()
        assert left + len(set(due.ran())) >= COUNT and other == 10  # in one place: waiting, or done
    async with due.worker():
        await due.all_ran()

    assert len(due.ran()) <= COUNT + 10 * 5  # a kill repeats at most what ran


async def test_foreign_transactions_hold_up_and_lose_nothing(tmp_path: Path) -> None:
    due = Due(tmp_path, tmp_path / "bus.db")
    await due.fill()
    reader, writer = (sqlite3.connect(due.file, isolation_level=None) for _ in range(2))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM job").fetchall()
    async with due.worker() as process:
        writer.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(5)
        assert process.returncode is None
        writer.execute("ROLLBACK")
        await due.all_ran()
        reader.execute("ROLLBACK")
    reader.close()
    writer.close()
    assert len(due.ran()) == COUNT and "Traceback" not in due.said


async def test_a_full_disk_holds_up_and_loses_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=32m", "tmpfs") as folder:
        due, ballast = Due(tmp_path, folder / "bus.db"), folder / "ballast"
        await due.fill()
        async with due.worker() as process:
            with ballast.open("wb", buffering=0) as out:
                try:
                    while True:
                        out.write(b"x" * 4096)
                except OSError:
                    pass
            await asyncio.sleep(5)
            assert process.returncode is None
            ballast.unlink()
            await due.all_ran()
        assert len(set(due.ran())) == COUNT and due.said.count("got a full one") <= 1
