"""Jobs on the SQLite engine: bulk enqueue, one by one, consumed; and huey's on its own."""

import tempfile
import time
from pathlib import Path

from benchmarks.memory import until
from benchmarks.shop import seen
from busline import App


def job_app(folder: str) -> App:
    app = App("bench", jobs=f"sqlite:///{folder}/bus.db")

    @app.task
    async def handle(id: str, email: str, cents: int) -> None:
        seen.ids.add(id)

    return app


async def enqueue_and_consume(count: int) -> tuple[float, float]:
    """Jobs a second: enqueued with `enqueue_many`, then consumed by an App that starts
    afterwards."""
    seen.ids.clear()
    with tempfile.TemporaryDirectory() as path:
        app = job_app(path)
        handle = next(iter(app.tasks))
        async with app:
            begun = time.perf_counter()
            await app.enqueue_many(handle.call(f"a{n}", "a@b.c", n) for n in range(count))
            enqueued = count / (time.perf_counter() - begun)
        begun = time.perf_counter()
        async with app.running():
            await until(lambda: len(seen.ids) == count)
            return enqueued, count / (time.perf_counter() - begun)


async def one_by_one(count: int) -> float:
    """Median seconds of one awaited `enqueue`."""
    with tempfile.TemporaryDirectory() as path:
        app = job_app(path)
        handle = next(iter(app.tasks))
        async with app:
            return await _median(handle, count)


async def _median(handle: object, count: int) -> float:
    took = []
    for n in range(count):
        begun = time.perf_counter()
        await handle.enqueue(f"a{n}", "a@b.c", n)  # type: ignore[attr-defined]  # the task of job_app
        took.append(time.perf_counter() - begun)
    return sorted(took)[count // 2]


def huey(count: int) -> float:
    """The same jobs through huey's SQLite storage and one consumer thread's loop; jobs a second."""
    from huey import SqliteHuey

    done: set[str] = set()
    with tempfile.TemporaryDirectory() as path:
        peer = SqliteHuey("bench", filename=str(Path(path) / "huey.db"), results=False)

        @peer.task()  # type: ignore[untyped-decorator]  # huey has no types
        def handle(id: str, email: str, cents: int) -> None:
            done.add(id)

        for n in range(count):
            handle(f"a{n}", "a@b.c", n)
        begun = time.perf_counter()
        while (task := peer.dequeue()) is not None:
            peer.execute(task)
        assert len(done) == count
        return count / (time.perf_counter() - begun)
