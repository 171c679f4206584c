"""What users of event streams rely on, on every engine."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Annotated

import pytest
from examples.java import OrderPlaced, events, follow, paid, state
from examples.java import app as java
from fastapi import Depends as FastDepends
from pydantic import BaseModel, Field

from busline import (
    App,
    CallNext,
    Delivery,
    Depends,
    Header,
    Invalid,
    Key,
    Reject,
    Retry,
    RetryLater,
    Router,
    Topic,
)
from busline.app import Setting
from busline.runtime.engines import Engines
from busline.testing.clock import SimClock
from busline.transports.memory import MemoryTransport
from tests.stories.conftest import EVERY_PAIR, Tell


class Item(BaseModel):
    n: int


items = Topic("items", Item, key="n", partitions=4)
one_lane = Topic("lane", Item, partitions=1)


@pytest.mark.parametrize("tell", EVERY_PAIR, indirect=True)
async def test_java_records_decode_and_other_types_are_skipped(tell: Tell) -> None:
    got: list[object] = []

    async def saw(event: object, delivery: Delivery) -> None:
        got.append((event, delivery.headers_all("ce_id")))

    async with tell(java, override={paid: saw}) as story:
        await story.deliver(
            events,
            b'{"type":"OrderPaid","orderId":"1","amountCents":5,"more":true}',
            headers=[("ce_id", b"1"), ("ce_id", b"2")],
        )
        await story.deliver(events, b'{"type":"OrderPlaced","orderId":"1"}')
        await story.deliver(events, b'{"type":"Brandnew"}')
        await story.deliver(events, b'{"type":"OrderPaid","orderId":1}')

        assert len(got) == 1 and story.counts("paid").skipped == 2
        assert "amountCents" in (await story.dead())[0].reason


@pytest.mark.parametrize("tell", EVERY_PAIR, indirect=True)
async def test_a_tombstone_reaches_only_a_type_that_admits_none(tell: Tell) -> None:
    got: list[object] = []

    async def saw(value: OrderPlaced | None, key: Annotated[str, Key()]) -> None:
        got.append((value, key))

    async with tell(java, override={follow: saw}) as story:
        await java.tombstone(state, "1")
        await java.tombstone(events, "1")
        await story.settled()
        assert got == [(None, "1")] and story.counts("paid").skipped == 1


async def test_a_lane_waits_for_its_retry_and_others_pass(tell: Tell) -> None:
    app, seen = App("a"), list[tuple[int, int]]()

    @app.subscriber(items, order="key", retry=Retry(3, delay=5, jitter=False))
    async def handle(item: Item, delivery: Delivery) -> None:
        seen.append((item.n, delivery.attempt))
        if item.n == 1 and delivery.attempt == 1:
            raise ValueError

    async with tell(app) as story:
        await app.publish_many(items, [Item(n=1), Item(n=1), Item(n=2)])
        await story.settled()
        assert sorted(seen) == [(1, 1), (2, 1)]
        await story.advance(6)
        assert seen[2:] == [(1, 2), (1, 1)] or seen[2:4] == [(1, 2), (1, 1)]


async def test_retry_later_in_a_lane_is_not_counted_up_to_a_minute(tell: Tell) -> None:
    app, attempts = App("a"), list[int]()

    @app.subscriber(one_lane, retry=Retry(2, delay=1, jitter=False))
    async def handle(item: Item, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        raise RetryLater(25, "busy")

    async with tell(app) as story:
        await story.publish(one_lane, Item(n=1))
        await story.advance(200)
        assert attempts[:4] == [1, 1, 1, 2]
        assert len(await story.dead()) == 1


async def test_one_lane_runs_in_order_one_at_a_time(tell: Tell) -> None:
    app, seen, running = App("a"), list[int](), [0]

    @app.subscriber(one_lane)
    async def handle(item: Item) -> None:
        running[0] += 1
        assert running[0] == 1
        await asyncio.sleep(0)
        running[0] -= 1
        seen.append(item.n)

    async with tell(app) as story:
        await app.publish_many(one_lane, [Item(n=n) for n in range(300)])
        await story.settled()
        assert seen == list(range(300))


async def test_an_async_generator_publishes_many_with_its_outcome(tell: Tell) -> None:
    app, seen = App("a"), list[int]()

    @app.subscriber(one_lane, publish=items)
    async def spread(item: Item) -> AsyncIterator[Item]:
        for n in range(item.n):
            yield Item(n=n)
        if item.n == 3:
            raise Reject("three")

    @app.subscriber(items, group="sink")
    async def sink(item: Item) -> None:
        seen.append(item.n)

    async with tell(app) as story:
        await app.publish_many(one_lane, [Item(n=2), Item(n=3)])
        await story.settled()
        assert sorted(seen) == [0, 1]


async def test_dependencies_see_the_failure_and_close_in_order(tell: Tell) -> None:
    app, log = App("a"), list[str]()

    async def session() -> AsyncGenerator[str]:
        log.append("open")
        try:
            yield "session"
        except ValueError:
            log.append("rollback")
            raise
        finally:
            log.append("close")

    def table(of: Annotated[str, Depends(session)]) -> Generator[str]:
        try:
            yield f"table of {of}"
        except ValueError:
            log.append("swallowed")

    @app.subscriber(one_lane, retry=Retry(1))
    async def handle(
        item: Item, table: Annotated[str, Depends(table)], again: str = FastDepends(session)
    ) -> None:
        log.append(f"{table}, {again}")
        raise ValueError

    async with tell(app) as story:
        await story.publish(one_lane, Item(n=1))
        assert log == [
            "open",
            "table of session, session",
            "swallowed",
            "close",
        ]  # the inner one swallowed it: the outer sees none
        assert (await story.dead())[0].error_type == "ValueError"


async def test_a_teardown_that_fails_fails_the_delivery_and_drops_its_sends(tell: Tell) -> None:
    app, seen = App("a"), list[int]()

    async def commit() -> AsyncGenerator[None]:
        yield
        raise ConnectionError("commit")

    @app.task
    async def job(n: int) -> None:
        seen.append(n)

    @app.subscriber(one_lane, retry=Retry(1))
    async def handle(item: Item, done: Annotated[None, Depends(commit)]) -> None:
        await job.enqueue(item.n)

    async with tell(app) as story:
        await story.publish(one_lane, Item(n=1))
        assert (await story.dead())[0].error == "commit" and seen == []


async def test_app_scoped_dependencies_and_lifespan_open_once(tell: Tell) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncGenerator[None]:
        log.append(f"start {app.name}")
        yield
        log.append("stop")

    async def pool(app: App) -> AsyncGenerator[str]:
        log.append("pool")
        yield app.name
        log.append("pool closed")

    app = App("a", lifespan=lifespan)

    @app.subscriber(one_lane)
    async def handle(item: Item, pool: Annotated[str, Depends(pool, scope="app")]) -> None:
        log.append(pool)

    async with tell(app) as story:
        await app.publish_many(one_lane, [Item(n=1), Item(n=2)])
        await story.settled()
    assert log == ["start a", "pool", "a", "a", "pool closed", "stop"]


async def test_middleware_runs_outermost_first_and_may_refuse(tell: Tell) -> None:
    log: list[str] = []

    def named(name: str):  # type: ignore[no-untyped-def]  # a middleware, made for its name
        async def layer(delivery: Delivery, call_next: CallNext) -> object:
            log.append(name)
            if delivery.headers.get("stop") == name:
                raise Reject(f"stopped by {name}")
            return await call_next(delivery)

        return layer

    app, outer, inner = (
        App("a", middleware=[named("first"), named("second")]),
        Router(prefix="o.", middleware=[named("outer")]),
        Router(prefix="i.", middleware=[named("inner")]),
    )
    outer.include(inner)
    app.include(outer)

    @inner.subscriber(one_lane)
    async def handle(item: Item, who: Annotated[str | None, Header("who")] = None) -> None:
        log.append(who or "nobody")

    async with tell(app) as story:
        await story.publish(one_lane, Item(n=1), headers={"who": "me"})
        assert log == ["first", "second", "outer", "inner", "me"]
        assert story.counts("o.i.handle").handled == 1
        await story.publish(one_lane, Item(n=1), headers={"stop": "outer"})
        assert (await story.dead())[0].reason == "stopped by outer"


class Env(BaseModel):
    user_id: int = Field(alias="userId")


async def test_aliases_go_out_and_come_back(tell: Tell) -> None:
    app, seen = App("a"), list[Env]()
    envs = Topic("envs", Env)

    @app.task
    async def echo(env: Env) -> Env:
        return env

    @app.subscriber(envs)
    async def handle(env: Env) -> None:
        seen.append(env)
        raise Reject("look")

    env = Env(userId=5)
    async with tell(app) as story:
        assert await (await echo.enqueue(env)).result(timeout=60) == env
        await story.publish(envs, env)
        assert seen == [env] and (await story.dead())[0].body == b'{"userId":5}'
        await story.redrive()
        assert seen == [env, env]


async def test_headers_that_are_no_text_never_stop_a_record(tell: Tell) -> None:
    app, seen = App("a"), list[object]()
    headers = [
        ("trash", b"\xc3\x28"),
        ("ce_id", b"1"),
        ("ce_id", b"2"),
        ("empty", None),
        ("é", b"x"),
    ]

    @app.subscriber(one_lane)
    async def handle(
        item: Item, delivery: Delivery, ce_id: Annotated[str, Header("ce_id")]
    ) -> None:
        seen.append((ce_id, delivery.headers_all("ce_id"), len(delivery.headers)))
        raise Reject("keep it")

    async with tell(app) as story:
        await story.deliver(one_lane, b'{"n":1}', headers=headers)
        assert seen == [("2", (b"1", b"2"), 4)]
        assert (await story.dead())[0].raw_headers == tuple(headers)
        await story.redrive()
        assert (await story.dead())[0].raw_headers == tuple(headers) and len(seen) == 2


async def test_an_app_opens_again_and_again(tell: Tell) -> None:
    app, seen = App("a"), list[int]()

    @app.subscriber(one_lane)
    async def handle(item: Item) -> None:
        seen.append(item.n)

    for n in range(3):
        async with tell(app) as story:
            await story.publish(one_lane, Item(n=n))
            async with app:  # joins
                pass
            with pytest.raises(Invalid, match="'a': expected an App that is closed"):
                await app.running().__aenter__()
    assert seen == [0, 1, 2]


async def test_two_topics_in_one_subscriber(tell: Tell) -> None:
    app, seen = App("a"), list[str]()

    class Other(BaseModel):
        name: str

    others = Topic("others", Other)

    @app.subscriber(items | others)
    async def both(event: Item | Other) -> None:
        seen.append(type(event).__name__)

    async with tell(app) as story:
        await story.publish(items, Item(n=1))
        await story.publish(others, Other(name="x"))
        assert seen == ["Item", "Other"]


async def test_a_lane_opens_when_its_record_is_lost_while_it_waits_for_a_retry() -> None:
    app, runs, clock = App("a"), list[int](), SimClock()
    transport = MemoryTransport(clock)

    @app.subscriber(one_lane, retry=Retry(2, delay=30, jitter=False))
    async def handle(item: Item) -> None:
        runs.append(item.n)
        if len(runs) == 1:
            raise ValueError

    async with app.running_with(Setting(Engines(transport, transport), clock)), asyncio.timeout(10):
        await app.publish_many(one_lane, [Item(n=1), Item(n=2)])
        while not runs or app.bus().workers[0].busy:
            await asyncio.sleep(0.001)
        transport.lose(transport.receivers[0])
        while runs != [1, 1, 2]:
            await asyncio.sleep(0.001)


async def test_what_has_not_begun_is_given_back_when_it_is_wanted() -> None:
    app, runs, clock, gate = App("a"), list[int](), SimClock(), asyncio.Event()
    transport = MemoryTransport(clock)

    @app.subscriber(one_lane)
    async def handle(item: Item) -> None:
        runs.append(item.n)
        await gate.wait()

    async with app.running_with(Setting(Engines(transport, transport), clock)), asyncio.timeout(10):
        await app.publish_many(one_lane, [Item(n=n) for n in range(3)])
        while not runs:
            await asyncio.sleep(0.001)
        worker, receiver = app.bus().workers[0], transport.receivers[0]
        held = list(receiver.held.values())
        worker.release(held)
        while list(receiver.held.values()) == held:  # given back, and handed out again
            await asyncio.sleep(0.001)
        gate.set()
        while runs != [0, 1, 2]:
            await asyncio.sleep(0.001)
        while not worker.idle:
            await asyncio.sleep(0.001)
