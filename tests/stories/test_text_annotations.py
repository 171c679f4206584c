"""Annotations that are text: what Python can resolve works, what it cannot is one clear error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel

from busline import INJECTED, App, ConfigError, Delivery, Depends, Topic
from busline.testing import in_memory

if TYPE_CHECKING:
    from decimal import Decimal


async def test_a_model_declared_below_its_use() -> None:
    async with in_memory(below) as bus:
        await bus.publish(late_topic(), Late(n=1))
        assert seen == [Late(n=1)]


async def test_a_model_local_to_the_function_that_builds_the_app() -> None:
    class Local(BaseModel):
        n: int

    def one() -> int:
        return 1

    app, topic, got = App("a"), Topic("local", Local), list[object]()

    @app.subscriber(topic)
    async def handle(item: Local, n: Annotated[int, Depends(one)]) -> None:
        got.append((item, n))

    @app.task
    async def twice(item: Local, delivery: Delivery = INJECTED) -> int:
        return item.n * 2 * delivery.attempt

    async with in_memory(app) as bus:
        await bus.publish(topic, Local(n=2))
        assert got == [(Local(n=2), 1)]
        job = await twice.enqueue(Local(n=4))
        await bus.settled()
        assert await job.result() == 8


async def test_a_decorator_of_another_kind_is_seen_through() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return inner

    app, got = App("a"), list[int]()
    topic = Topic("late", Late)

    @app.subscriber(topic)
    @logged
    async def handle(item: Late, delivery: Delivery) -> None:
        got.append(item.n + delivery.attempt)

    async with in_memory(app) as bus:
        await bus.publish(topic, Late(n=1))
        assert got == [2]


async def test_a_name_for_checkers_only_is_one_clear_error() -> None:
    app = App("a")

    @app.task
    async def pay(amount: Decimal) -> None: ...

    with pytest.raises(
        ConfigError,
        match=(
            r"'amount' at tests\.stories\..*\.pay: expected an annotation that can be resolved, got"
            r" 'Decimal'\. Import 'Decimal' at run time"
        ),
    ):
        async with in_memory(app):
            pass


below, seen = App("below"), list[Any]()


def late_topic() -> Any:
    return known[0]


known: list[Any] = []


class Late(BaseModel):
    n: int


known.append(Topic("late", Late))


@below.subscriber(known[0])
async def handle_late(item: Late) -> None:
    seen.append(item)
