"""Plain functions: as many at once as there are threads, and no thread is forgotten that nothing
can end."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from busline import App, Retry, Topic
from busline.app import Setting
from busline.core.clock import Clock, SystemClock
from busline.core.errors import Unavailable
from busline.runtime.engines import Engines
from busline.runtime.work import THREADS
from busline.testing.clock import SimClock
from busline.transports.memory import MemoryTransport

GO = threading.Event()
RUNNING: list[int] = []


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    GO.clear()
    RUNNING.clear()
    yield
    GO.set()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.001)


def work(n: int) -> int:
    RUNNING.append(n)
    GO.wait(20)
    return n


def setting(clock: Clock | None = None, **more: float) -> tuple[MemoryTransport, Setting]:
    engine = MemoryTransport(clock or SystemClock())
    return engine, Setting(Engines(engine, engine), engine.clock, **more)  # type: ignore[arg-type]  # its times


async def test_no_more_are_taken_than_there_are_threads() -> None:
    app = App("a")
    task = app.task(work)
    engine, at = setting()
    async with app.running_with(at):
        jobs = await app.enqueue_many(task.call(n) for n in range(THREADS + 20))
        await until(lambda: len(RUNNING) == THREADS)
        for _ in range(20):
            await asyncio.sleep(0)
        depth = (await engine.inspector.depth())["a"]
        assert (depth.running, depth.waiting) == (THREADS, 20)
        GO.set()
        assert await jobs.results(20) == list(range(THREADS + 20))


async def test_those_that_are_awaited_run_beside_the_threads() -> None:
    app, seen = App("a"), list[int]()
    plain = app.task(name="plain")(work)

    @app.task
    async def awaited(n: int) -> int:
        seen.append(n)
        return n

    _, at = setting()
    async with app.running_with(at):
        await app.enqueue_many(plain.call(n) for n in range(THREADS - 1))
        await until(lambda: len(RUNNING) == THREADS - 1)
        await (await app.enqueue_many(awaited.call(n) for n in range(500))).results(20)
        assert len(seen) == 500
        GO.set()


async def test_a_concurrency_that_is_asked_for_brings_its_threads() -> None:
    app, topic = App("a"), Topic("numbers", int, partitions=1)
    app.subscriber(topic, order="none", concurrency=THREADS + 5)(work)
    _, at = setting()
    async with app.running_with(at):
        await app.publish_many(topic, range(THREADS + 9))
        await until(lambda: len(RUNNING) == THREADS + 5)
        GO.set()


async def test_a_run_over_its_time_holds_its_thread_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, clock = App("a"), SimClock()
    task = app.task(name="work", timeout=3, retry=Retry(2, delay=0))(work)
    _, at = setting(clock)
    with caplog.at_level(logging.WARNING, "busline"):
        async with app.running_with(at):
            job = await task.enqueue(1)
            await task.enqueue(2)
            await until(lambda: len(RUNNING) == 2)
            clock.move(3.5)
            for _ in range(50):
                await asyncio.sleep(0)
            assert (await job.status()).state == "running" and sorted(RUNNING) == [1, 2]
            GO.set()
            # its second attempt, when the first has ended
            await until(lambda: RUNNING.count(1) == 2)
    said = [one.getMessage() for one in caplog.records if "cannot be ended" in one.getMessage()]
    assert said == [
        "'work' runs in a thread, which cannot be ended: until it returns it holds one of"
        f" {THREADS}, and its message does not run again here"
    ]


async def test_a_deadline_does_not_count_the_wait_for_a_thread() -> None:
    app, clock = App("a"), SimClock()
    task = app.task(timeout=3, retry=Retry(1))(work)
    engine, at = setting(clock)
    async with app.running_with(at):
        jobs = await app.enqueue_many(task.call(n) for n in range(2 * THREADS))
        await until(lambda: len(RUNNING) == THREADS)
        clock.move(2.5)
        GO.set()
        await until(lambda: len(RUNNING) == 2 * THREADS)
        # the loop has heard of their ends
        await asyncio.gather(*(job.result() for job in jobs[:THREADS]))
        clock.move(2.5)
        assert await jobs.results() == list(range(2 * THREADS))
        assert await engine.inspector.dead() == []


async def test_a_job_that_was_given_back_does_not_run_beside_its_own_thread() -> None:
    """The first run outlives the App that began it; the job comes back to the next one in this
    process."""
    app = App("a")
    task = app.task(work)
    engine, at = setting(drain=0.01, cancel=0.01)
    async with engine:  # stays open between the two
        async with app.running_with(at):
            await task.enqueue(1)
            await until(lambda: RUNNING == [1])
        async with app.running_with(at):
            await until(lambda: app.bus().workers[0].held)
            for _ in range(50):
                await asyncio.sleep(0)
            assert RUNNING == [1]
            GO.set()
            await until(lambda: RUNNING == [1, 1])


async def test_a_thread_that_ends_after_its_loop_leaves_nothing_behind() -> None:
    from busline.core.threads import held, in_thread

    begun = threading.Event()

    def hold() -> None:
        begun.set()
        GO.wait(20)

    async def begin() -> None:
        asyncio.ensure_future(in_thread(hold, ("see", "1")))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        raise Unavailable("the loop ends")

    def loop() -> None:
        with pytest.raises(Unavailable):
            later.start()
            asyncio.run(begin())

    later = threading.Timer(0.2, GO.set)
    await asyncio.to_thread(loop)

    assert held(("see", "1")) is None
