"""Routers in routers are one App."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from busline import App, CallNext, Delivery, Middleware, Router, Topic
from busline.testing import in_memory
from tests.stories.conftest import Tell
from tests.stories.test_streams import Item

source, sink = Topic("source", Item, partitions=1), Topic("sink", Item, partitions=1)


def noting(log: list[str], name: str) -> Middleware:
    async def note(delivery: Delivery, call_next: CallNext) -> object:
        log.append(name)
        return await call_next(delivery)

    return note


async def test_names_carry_every_prefix_and_middleware_runs_from_the_outside(tell: Tell) -> None:
    log: list[str] = []
    app = App("a", middleware=[noting(log, "app")])
    outer = Router(prefix="outer.", middleware=[noting(log, "outer")])
    inner = Router(prefix="inner.", middleware=[noting(log, "inner")])
    outer.include(inner)
    app.include(outer)

    @inner.task  # after the include
    async def done(n: int) -> None:
        log.append(f"done {n}")

    @inner.subscriber(source, publish=sink)
    async def handle(item: Item) -> Item:
        await done.enqueue(item.n)
        return item

    @outer.subscriber(sink)
    async def sunk(item: Item) -> None:
        log.append(f"sunk {item.n}")

    async with tell(app) as story:
        await story.publish(source, Item(n=1))

        assert log[:3] == ["app", "outer", "inner"]
        assert {"done 1", "sunk 1"} <= set(log)
        assert {name for name in app.bus().counts} == {
            "outer.inner.handle",
            "outer.inner.done",
            "outer.sunk",
        }


async def test_an_app_runs_in_the_lifespan_of_fastapi() -> None:
    app, seen = App("a"), list[int]()

    @app.subscriber(source)
    async def handle(item: Item) -> None:
        seen.append(item.n)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with in_memory(app) as bus:
            await bus.publish(source, Item(n=1))
            yield

    async with FastAPI(lifespan=lifespan).router.lifespan_context(FastAPI()):
        assert seen == [1]
