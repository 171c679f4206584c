"""Runs: functions that never wait share a task, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from busline import INJECTED, App, Delivery, Retry, Topic
from busline.app import Setting
from busline.core.counts import Counts
from busline.runtime.engines import Engines
from busline.runtime.sending import HANDLING
from busline.testing.clock import SimClock
from busline.transports.memory import MemoryTransport

Function = Callable[[int], Awaitable[None]]
MARK: ContextVar[Any] = ContextVar("mark", default=None)


class Odd:
    """Refuses to be compared."""

    def __eq__(self, _: object) -> bool:
        raise ValueError("which of all my values?")

    __hash__ = None  # type: ignore[assignment]  # as such objects are


async def ran(app: App, count: int, *functions: Function) -> Counts:
    """What became of so many jobs of each function, all of them sent before any runs."""
    engine, total = MemoryTransport(SimClock()), Counts()
    tasks = [app.task(retry=Retry(1))(one) for one in functions]
    async with app.running_with(Setting(Engines(engine, engine), engine.clock)):
        async with asyncio.timeout(20):
            await app.enqueue_many(task.call(n) for n in range(count) for task in tasks)
            while total.handled + total.dead < count * len(tasks):
                await asyncio.sleep(0)
                total = Counts()
                for one in app.bus().counts.values():
                    total.add(one)
    return total


async def test_functions_that_never_wait_share_a_task() -> None:
    tasks: list[object] = []

    async def quick(n: int) -> None:
        tasks.append(asyncio.current_task())

    await ran(App("a"), 300, quick)
    assert len(tasks) == 300 and len(set(map(id, tasks))) < 30


async def test_a_function_that_waits_has_a_task_of_its_own() -> None:
    tasks: list[object] = []

    async def slow(n: int) -> None:
        before = asyncio.current_task()
        await asyncio.sleep(0)
        assert asyncio.current_task() is before
        tasks.append(before)

    assert (await ran(App("a"), 300, slow)).handled == 300
    assert len(set(map(id, tasks))) == 300


@pytest.mark.parametrize("value", ["left", Odd(), float("nan")])
async def test_no_function_sees_what_another_left_in_its_context(value: Any) -> None:
    seen: list[Any] = []

    async def leaves(n: int) -> None:
        seen.append(MARK.get())
        MARK.set(value)

    await ran(App("a"), 50, leaves)
    assert seen == [None] * 50


async def test_what_a_function_starts_keeps_its_delivery() -> None:
    app, engine = App("a"), MemoryTransport(SimClock())
    pairs: list[tuple[str, str]] = []

    async def child(id: str) -> None:
        handled = HANDLING.get()
        pairs.append((id, "" if handled is None else handled.id))

    @app.task
    async def starts(delivery: Delivery = INJECTED) -> None:
        asyncio.get_running_loop().create_task(child(delivery.id))

    async with app.running_with(Setting(Engines(engine, engine), engine.clock)):
        async with asyncio.timeout(20):
            await app.enqueue_many(starts.call() for _ in range(50))
            while len(pairs) < 50:
                await asyncio.sleep(0)
    assert all(one == other for one, other in pairs)


async def cancels(n: int) -> None:
    current = asyncio.current_task()
    assert current is not None
    if n % 2 == 0:
        current.cancel()
    else:
        await asyncio.sleep(0)


async def takes_it_back(n: int) -> None:
    current = asyncio.current_task()
    assert current is not None
    if n % 2 == 0:
        current.cancel()
        current.uncancel()
    else:
        await asyncio.sleep(0)


@pytest.mark.parametrize("function", [cancels, takes_it_back])
async def test_a_cancellation_that_a_function_leaves_behind_hits_no_other(
    function: Function,
) -> None:
    counts = await ran(App("a"), 100, function)
    assert (counts.handled, counts.dead) == (100, 0)


async def test_a_task_is_called_after_what_it_runs() -> None:
    names: set[tuple[str, str]] = set()

    def called() -> str:
        current = asyncio.current_task()
        assert current is not None
        return current.get_name()

    async def one(n: int) -> None:
        names.add(("one", called()))

    async def two(n: int) -> None:
        names.add(("two", called()))

    await ran(App("a"), 100, one, two)
    assert names == {("one", "one"), ("two", "two")}


async def test_others_have_their_turn_meanwhile() -> None:
    """Whoever else is in the loop does not wait until everything that is there has run."""
    app, topic, done, seen = App("a"), Topic("numbers", int), 0, set[int]()
    engine = MemoryTransport(SimClock())

    @app.subscriber(topic, order="none")
    async def quick(n: int) -> None:
        nonlocal done
        done += 1

    async with app.running_with(Setting(Engines(engine, engine), engine.clock)):
        async with asyncio.timeout(20):
            await app.publish_many(topic, range(1000))
            while done < 1000:
                seen.add(done)
                await asyncio.sleep(0)
    assert len(seen) > 4, seen


async def test_one_that_waits_for_long_keeps_none_of_the_quick_ones_from_running() -> None:
    order: list[int] = []
    go = asyncio.Event()

    async def mixed(n: int) -> None:
        if n == 0:
            await go.wait()
        order.append(n)
        if len(order) == 199:
            go.set()

    await ran(App("a"), 200, mixed)
    assert order[-1] == 0


async def test_only_the_one_that_waits_for_too_long_is_cut() -> None:
    app, clock = App("a"), SimClock()
    engine, ended = MemoryTransport(clock), list[int]()
    waiting = asyncio.Event()

    @app.task(timeout=3, retry=Retry(1))
    async def work(n: int) -> None:
        if n % 10 == 5:
            waiting.set()
            await asyncio.sleep(3600)
        ended.append(n)

    async with app.running_with(Setting(Engines(engine, engine), clock)):
        async with asyncio.timeout(20):
            await app.enqueue_many(work.call(n) for n in range(100))
            while len(ended) < 90:
                await asyncio.sleep(0)
            clock.move(3.5)
            while app.bus().workers[0].held:
                await asyncio.sleep(0)
        counts = app.bus().counts["work"]
    assert (counts.handled, counts.dead) == (90, 10)
