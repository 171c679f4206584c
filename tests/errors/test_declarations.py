"""Wrong declarations: each one clear text at start, all of an App's together, and nothing runs."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from busline import App, ConfigError, Delivery, Depends, Invalid, Retry, Router, Topic
from busline.testing import in_memory


class Order(BaseModel):
    id: str


class TwoNames(BaseModel):
    one: int = Field(validation_alias="in", serialization_alias="out")


orders = Topic("orders", Order, partitions=4)
HERE = "tests.errors.test_declarations"


async def text(app: App) -> str:
    """The whole text of what is wrong with an App."""
    with pytest.raises((ConfigError, Invalid)) as caught:
        async with in_memory(app):
            pass
    return str(caught.value)


def two_bodies(app: App) -> None:
    @app.subscriber(orders)
    async def bill(order: Order, other: Order) -> None: ...


def no_body(app: App) -> None:
    @app.subscriber(orders)  # type: ignore[arg-type]  # the mistake
    async def bill() -> None: ...


def same_group(app: App) -> None:
    @app.subscriber(orders, group="g")
    async def one(order: Order) -> None: ...

    @app.subscriber(orders, group="g")
    async def two(order: Order) -> None: ...


def same_name(app: App) -> None:
    @app.subscriber(orders, name="bill", group="one")
    async def one(order: Order) -> None: ...

    @app.task(name="bill")
    async def two() -> None: ...


def too_much_concurrency(app: App) -> None:
    @app.subscriber(orders, concurrency=5)
    async def bill(order: Order) -> None: ...


def long_lane(app: App) -> None:
    @app.subscriber(orders, retry=Retry(5, delay=30))
    async def bill(order: Order) -> None: ...


def only_without_discriminator(app: App) -> None:
    @app.subscriber(orders.only(Order))
    async def bill(order: Order) -> None: ...


def pattern(app: App) -> None:
    @app.subscriber(Topic("orders.*", Order))
    async def bill(order: Order) -> None: ...


def two_aliases(app: App) -> None:
    @app.subscriber(Topic("two", TwoNames))
    async def bill(order: TwoNames) -> None: ...


def key_field(app: App) -> None:
    @app.subscriber(Topic("keyed", Order, key="nope"))
    async def bill(order: Order) -> None: ...


def not_injected(app: App) -> None:
    @app.task
    async def send(delivery: Delivery) -> None: ...


def variadic(app: App) -> None:
    @app.task
    async def send(*args: int) -> None: ...


def unresolved(app: App) -> None:
    @app.subscriber(orders)
    async def bill(order: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the mistake


def generator_without_publish(app: App) -> None:
    @app.subscriber(orders)
    async def bill(order: Order) -> AsyncIterator[Order]:
        yield order


def shorter_lived(app: App) -> None:
    async def one() -> int:
        return 1

    async def pool(n: Annotated[int, Depends(one)]) -> int:
        return n

    @app.subscriber(orders)
    async def bill(order: Order, pool: Annotated[int, Depends(pool, scope="app")]) -> None: ...


TABLE: list[tuple[Callable[[App], None], str]] = [
    (
        two_bodies,
        (
            f"'other' at {HERE}.two_bodies.<locals>.bill: expected Delivery, App, or Annotated with"
            " Header(), Key() or Depends(), got 'Order'. A function has one body, its first"
            " parameter: merge the two into one model, or say where the other comes from."
        ),
    ),
    (
        no_body,
        (
            f"'bill' at {HERE}.no_body.<locals>.bill: expected a first parameter for the body, got"
            " none. Add one."
        ),
    ),
    (
        same_group,
        (
            "'g': expected one function in this group on 'orders', got two:"
            f" {HERE}.same_group.<locals>.one and {HERE}.same_group.<locals>.two. Give one of them"
            " another group=."
        ),
    ),
    (
        same_name,
        (
            "'bill': expected a name of its own for each subscriber and task, got two:"
            f" {HERE}.same_name.<locals>.one and {HERE}.same_name.<locals>.two. Give one of them"
            " name=."
        ),
    ),
    (
        too_much_concurrency,
        (
            f"'bill' at {HERE}.too_much_concurrency.<locals>.bill: expected concurrency up to 4,"
            " the partitions, with order='partition', got 5. Use order='key' or more partitions,"
            " or lower concurrency=."
        ),
    ),
    (
        long_lane,
        (
            f"'retry' at {HERE}.long_lane.<locals>.bill: expected at most 60 s of waiting in a"
            " lane, got up to 450 s. Lower max_delay= or attempts=: everything behind the record"
            " waits meanwhile."
        ),
    ),
    (
        only_without_discriminator,
        (
            "'only' at orders: expected types of a discriminated union, got <class"
            " 'tests.errors.test_declarations.Order'>. Give the topic a union with"
            " Field(discriminator=...), and only() some of its models."
        ),
    ),
    (
        pattern,
        (
            "'orders.*': expected a topic's name of letters, digits, '.', '_' and '-', got another."
            " Name one topic; patterns are not supported."
        ),
    ),
    (
        two_aliases,
        (
            "'one' at two: expected a field that reads the name it is written under, got two"
            " different aliases. Give it one alias."
        ),
    ),
    (
        key_field,
        "'nope' at keyed: expected a field of 'Order', got none of that name. Correct key=.",
    ),
    (
        not_injected,
        (
            f"'delivery' at {HERE}.not_injected.<locals>.send: expected the default INJECTED, got"
            " another. Write `delivery: ... = INJECTED`."
        ),
    ),
    (
        variadic,
        (
            f"'args' at {HERE}.variadic.<locals>.send: expected parameters with names, got '*args:"
            " int'. Name each of them."
        ),
    ),
    (
        unresolved,
        (
            f"'order' at {HERE}.unresolved.<locals>.bill: expected an annotation that can be"
            " resolved, got 'Missing'. Import 'Missing' at run time (not only under"
            " TYPE_CHECKING), in the module of the function."
        ),
    ),
    (
        generator_without_publish,
        (
            f"'bill' at {HERE}.generator_without_publish.<locals>.bill: expected publish= for what"
            " it yields, got none. Name the topic."
        ),
    ),
    (
        shorter_lived,
        (
            f"'n' at {HERE}.shorter_lived.<locals>.pool: expected a dependency that lives as long"
            ' as the App, got one for each delivery. Give it scope="app" as well.'
        ),
    ),
]


@pytest.mark.parametrize(
    ("declare", "expected"), TABLE, ids=[declare.__name__ for declare, _ in TABLE]
)
async def test_a_wrong_declaration_is_one_clear_text(
    declare: Callable[[App], None], expected: str
) -> None:
    app = App("a")
    declare(app)

    assert await text(app) == expected


async def test_two_mistakes_are_said_together() -> None:
    app = App("a")
    two_bodies(app)

    @app.task
    async def send(*args: int) -> None: ...

    said = await text(app)

    assert len(said.splitlines()) == 2 and "'other'" in said and "'args'" in said


def test_a_router_belongs_to_one_app() -> None:
    router, app = Router(prefix="r."), App("a")
    app.include(router)
    with pytest.raises(
        ConfigError,
        match=(
            r"'r\.' at tests\.errors\.test_declarations:\d+: expected a router that belongs to"
            r" nobody yet, got one included at tests"
        ),
    ):
        App("b").include(router)
    with pytest.raises(ConfigError, match="expected a Router, got an App or itself"):
        app.include(App("c"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: Retry(0),
            "'attempts': expected a whole number from 1 to 1000000, got 0. Retry(1) runs once.",
        ),
        (
            lambda: Retry(delay=-1),
            (
                "'delay': expected 0 seconds or more, a hundred years at most, got -1."
                " Retry(delay=0) retries at once."
            ),
        ),
    ],
)
def test_a_wrong_policy_is_refused_where_it_is_made(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        make()
    assert str(caught.value) == expected


late_app = App("late")


async def test_a_task_that_no_other_process_can_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSLINE_JOBS", f"sqlite:///{tmp_path}/bus.db")

    @late_app.task
    async def send() -> None: ...

    with pytest.raises(ConfigError) as caught:
        async with late_app.running():
            pass
    assert (
        str(caught.value)
        == f"'send' at {HERE}.test_a_task_that_no_other_process_can_import.<locals>.send: expected"
        " a task that other processes get with the App, got one declared after the import."
        " Declare it at the top of a module, or in a function that runs while the module is"
        " imported."
    )
    async with in_memory(late_app) as bus:
        await send.enqueue()
        await bus.settled()
        assert bus.counts(send)["handled"] == 1
