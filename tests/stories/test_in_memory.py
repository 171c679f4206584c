"""The test bus that users get."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from examples.shop import Order, orders
from examples.shop import app as shop

from busline import App, Invalid, Retry, Topic
from busline.testing import Failed, in_memory
from tests.stories.test_streams import Item

items = Topic("items", Item)


async def test_each_entry_begins_empty() -> None:
    for _ in range(50):
        async with in_memory(shop) as bus:
            assert bus.published(orders) == []
            await bus.publish(orders, Order(id="a", email="b", cents=1))
            assert len(bus.published(orders)) == 1


async def test_what_dies_is_raised_with_its_cause_or_kept() -> None:
    app = App("a")

    @app.subscriber(items, retry=Retry(1))
    async def handle(item: Item) -> None:
        raise KeyError("why")

    async with in_memory(app) as bus:
        with pytest.raises(Exception, match="'a?.?handle' could not handle items/") as caught:
            await bus.publish(items, Item(n=1))
        assert isinstance(caught.value.__cause__, KeyError)
        assert len(bus.dead(handle)) == len(bus.dead(items)) == 1
    async with in_memory(app, errors="keep") as bus:
        await bus.publish(items, Item(n=1))
        assert bus.counts(handle)["dead"] == 1


async def test_attempts_that_failed_are_listed_and_none_is_left_unseen() -> None:
    app, other = App("a"), App("b")

    @app.task(name="same", retry=Retry(2, jitter=False))
    async def same() -> None:
        raise KeyError("typo")

    @other.task(name="same")
    async def good() -> None: ...

    with pytest.raises(Failed, match="'same' .*, attempt 1: KeyError: 'typo'") as caught:
        async with in_memory(app, other) as bus:
            job = await same.enqueue()
            await bus.settled()
            assert bus.counts(same)["dead"] == 0
    assert isinstance(caught.value.__cause__, KeyError)

    async with in_memory(app, other, errors="keep") as bus:
        job = await same.enqueue()
        await good.enqueue()
        await bus.settled()
        (failure,) = bus.failures(same)
        assert (failure.id, failure.attempt, str(failure.error), failure.again is not None) == (
            job.id,
            1,
            "'typo'",
            True,
        )
        await bus.advance(60)
        assert [(one.attempt, one.again is None) for one in bus.failures(same)] == [
            (1, False),
            (2, True),
        ] and not bus.failures(good)


async def test_leaving_a_test_that_failed_raises_the_tests_own_error() -> None:
    app = App("a")

    @app.task
    async def fails() -> None:
        raise KeyError("typo")

    with pytest.raises(AssertionError, match="mine"):
        async with in_memory(app) as bus:
            await fails.enqueue()
            await bus.settled()
            raise AssertionError("mine")


async def test_equal_names_of_two_apps_are_two_handlers() -> None:
    one, other, ran = App("one"), App("other"), list[int]()

    @one.subscriber(items, name="handle", retry=Retry(1))
    async def fails(item: Item) -> None:
        raise KeyError(item.n)

    @other.subscriber(items, name="handle")
    async def runs(item: Item) -> None:
        ran.append(item.n)

    async with in_memory(one, other, errors="keep") as bus:
        await bus.publish(items, Item(n=1))
        assert (len(bus.dead(fails)), len(bus.dead(runs)), len(bus.dead(items))) == (1, 0, 1)
        assert (
            bus.counts(fails)["dead"],
            bus.counts(runs)["dead"],
            bus.counts(runs)["handled"],
        ) == (1, 0, 1)
        assert await bus.redrive(fails) == 1
    assert ran == [1]


async def test_the_clock_begins_where_it_is_told_and_moves() -> None:
    app, begin, at = App("a"), datetime(2026, 1, 1, tzinfo=UTC), list[float]()

    @app.task
    async def note() -> None:
        at.append(app.bus().clock.time())

    async with in_memory(app, start=begin) as bus:
        await note.options(at=datetime(2026, 1, 2, tzinfo=UTC)).enqueue()
        await bus.advance(86_399)
        assert at == []
        await bus.advance(2)
        assert datetime.fromtimestamp(at[0], UTC) == datetime(2026, 1, 2, tzinfo=UTC)


async def test_a_second_bus_on_one_app_is_refused_by_name() -> None:
    async with in_memory(shop):
        with pytest.raises(Invalid, match="'shop': expected an App that is closed"):
            async with in_memory(shop):
                pass


async def test_entered_and_left_in_different_tasks() -> None:
    manager = in_memory(shop)
    bus = await asyncio.ensure_future(manager.__aenter__())
    await bus.publish(orders, Order(id="a", email="b", cents=1))
    await asyncio.ensure_future(manager.__aexit__(None, None, None))


async def test_followers_behind_a_waiting_retry_do_not_hold_the_test() -> None:
    app = App("a")
    topic = Topic("one", Item, partitions=1)

    @app.subscriber(topic, retry=Retry(2, delay=10, jitter=False))
    async def handle(item: Item) -> None:
        seen.append(item.n)
        raise ValueError

    seen: list[int] = []
    async with in_memory(app, errors="keep") as bus:
        await bus.publish(topic, Item(n=1))
        await bus.publish(topic, Item(n=2))
        assert seen == [1]
        await bus.advance(10)
        assert len(seen) >= 2


async def test_handlers_of_a_lifespan_are_there_once_per_entry() -> None:
    entered: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncGenerator[None]:
        entered.append("in")
        yield
        entered.append("out")

    app, runs = App("a", lifespan=lifespan), list[int]()

    @app.subscriber(items)
    async def handle(item: Item) -> None:
        runs.append(item.n)

    for n in range(50):
        async with in_memory(app) as bus:
            await bus.publish(items, Item(n=n))
    assert runs == list(range(50)) and entered == ["in", "out"] * 50


async def test_two_apps_at_once_do_not_meet() -> None:
    async def one(name: str) -> list[int]:
        app, seen = App(name), list[int]()

        @app.subscriber(items)
        async def handle(item: Item) -> None:
            seen.append(item.n)

        async with in_memory(app) as bus:
            for n in range(10):
                await bus.publish(items, Item(n=n))
        return seen

    first, second = await asyncio.gather(one("a"), one("b"))
    assert first == second == list(range(10))


async def test_afterwards_the_app_runs_on_its_own_engine(tmp_path: Path) -> None:
    app, seen = App("a", jobs=f"sqlite:///{tmp_path}/bus.db"), list[str]()

    @app.task
    async def note(text: str) -> str:
        seen.append(text)
        return text

    async with in_memory(app) as bus:
        await note.enqueue("memory")
        await bus.settled()
    async with app.running():
        assert await (await note.enqueue("file")).result(timeout=10) == "file"
    assert seen == ["memory", "file"]
