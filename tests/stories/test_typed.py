"""Headers and keys are what their annotation says; calls are bound as Python binds them; what
cannot be is refused."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Coroutine
from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, NewType, Optional

import pytest
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypeAliasType

from busline import (
    INJECTED,
    App,
    ConfigError,
    Delivery,
    Depends,
    Header,
    Invalid,
    Key,
    RetryLater,
    Topic,
)
from busline.testing import in_memory

ID = uuid.UUID("87ee3c3c-3141-4909-82fc-32802dbcf8b2")


class Colour(Enum):
    RED = "red"


def made() -> str:
    return "made"


Tenant = TypeAliasType("Tenant", Annotated[str, Header("tenant")])

READ: list[tuple[Any, str, object]] = [
    (Annotated[str, Header()], "a", "a"),
    (Annotated[int, Header()], "42", 42),
    (Annotated[bool, Header()], "false", False),
    (Annotated[bytes, Header()], "a", b"a"),
    (Annotated[uuid.UUID, Header()], str(ID), ID),
    (Annotated[uuid.UUID | None, Header()], str(ID), ID),
    (
        Annotated[datetime, Header()],
        "2026-01-02T03:04:05Z",
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    ),
    (Annotated[Colour, Header()], "red", Colour.RED),
    (Annotated[Literal["a", "b"], Header()], "a", "a"),
    (Annotated[int, Header(), Field(ge=40)], "42", 42),
    (Optional[Annotated[int, Header()]], "42", 42),  # noqa: UP045 - as users write it
    (Optional[Annotated[str, Depends(made)]], "", "made"),  # noqa: UP045
]


async def seen(annotation: Any, default: Any = ..., **given: Any) -> tuple[list[object], list[str]]:
    """What a function got for a parameter of this annotation, and the reasons of its dead
    letters."""
    app, topic, got = App("a"), Topic("t", int), list[object]()

    async def see(number: int, value: Any) -> None:
        got.append(value)

    if default is not ...:
        see.__defaults__ = (default,)
    see.__annotations__["value"] = annotation
    app.subscriber(topic)(see)
    async with in_memory(app, errors="keep") as bus:
        await bus.publish(topic, 1, **given)
        return got, [one.reason for one in bus.dead(see)]


@pytest.mark.parametrize(("annotation", "sent", "wanted"), READ)
async def test_a_header_is_what_its_annotation_says(
    annotation: Any, sent: str, wanted: object
) -> None:
    got, dead = await seen(annotation, headers={"value": sent})
    assert (got, [type(one) for one in got], dead) == ([wanted], [type(wanted)], [])


@pytest.mark.parametrize(
    ("annotation", "key", "wanted"),
    [
        (Annotated[str, Key()], "k", "k"),
        (Annotated[int, Key()], 3, 3),
        (Annotated[bytes, Key()], b"\xff", b"\xff"),
        (Annotated[uuid.UUID, Key()], ID, ID),
        (Annotated[date, Key()], date(2026, 1, 2), date(2026, 1, 2)),
        (Annotated[Colour, Key()], Colour.RED, Colour.RED),
        (Annotated[str | None, Key()], None, None),
        (Optional[Annotated[str, Key()]], "k", "k"),  # noqa: UP045
    ],
)
async def test_a_key_is_what_its_annotation_says(annotation: Any, key: Any, wanted: object) -> None:
    assert await seen(annotation, key=key) == ([wanted], [])


@pytest.mark.parametrize(
    ("annotation", "sent", "said"),
    [
        (
            Annotated[int, Header()],
            {"value": "many"},
            "'value': expected what 'see' takes, got 'many'",
        ),
        (
            Annotated[Literal["a"], Header()],
            {"value": "c"},
            "'value': expected what 'see' takes, got 'c'",
        ),
        (
            Annotated[str, Header(), Field(max_length=1)],
            {"value": "42"},
            "'value': expected what 'see' takes, got '42'",
        ),
        (
            Annotated[int, Header("x-n")],
            {},
            "'x-n' at see: expected a header of this name, got none",
        ),
        (Annotated[str, Key()], {}, "'key' at see: expected a message with a key, got none"),
    ],
)
async def test_what_does_not_fit_is_dead_at_once_with_its_name(
    annotation: Any, sent: dict[str, str], said: str
) -> None:
    got, dead = await seen(annotation, headers=sent)
    assert got == [] and len(dead) == 1 and dead[0].startswith(said)


async def test_a_default_stands_for_a_header_that_is_missing() -> None:
    assert await seen(Annotated[int, Header()], 7) == ([7], [])
    assert await seen(Annotated[int | None, Header()]) == ([None], [])
    assert await seen(Tenant, headers={"tenant": "acme"}) == (["acme"], [])


@pytest.mark.parametrize(
    "annotation",
    [
        list[Annotated[str, Header()]],
        Annotated[str, Header(), Key()],
        Annotated[list[str], Header()],
        Annotated[BaseModel, Key()],
        Annotated[int, Header()] | str | None,
        Annotated[str, Depends],
    ],
)
async def test_a_marker_in_the_wrong_place_or_on_what_is_no_text_is_refused(
    annotation: Any,
) -> None:
    with pytest.raises(ConfigError, match="value|key|Depends"):
        await seen(annotation)


async def test_a_key_field_is_one_text() -> None:
    class Order(BaseModel):
        id: uuid.UUID
        lines: list[int] = []

    app, got = App("a"), list[object]()
    orders = Topic("orders", Order, key="id")

    @app.subscriber(orders)
    async def see(order: Order, key: Annotated[uuid.UUID, Key()]) -> None:
        got.append(key)

    async with in_memory(app) as bus:
        await bus.publish(orders, Order(id=ID))
    assert got == [ID]

    wrong = App("b", publishes=[Topic("wrong", Order, key="lines")])
    with pytest.raises(ConfigError, match="'lines' at wrong: expected a type that one text can be"):
        async with in_memory(wrong):
            pass


async def test_a_call_is_bound_as_python_binds_it() -> None:
    app, got = App("a"), list[object]()

    @app.task
    async def pay(who: str, /, cents: int = 3, *, note: str = "") -> None:
        got.append((who, cents, note))

    call: Any = pay.enqueue
    async with in_memory(app) as bus:
        await call("a", note="b")
        await call("c", cents=4)
        wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            (("a", 1, "n"), {}),
            ((), {"who": "a"}),
            (("a",), {"euros": 2}),
            ((), {}),
            (("a", 1), {"cents": 2}),
        ]
        for args, more in wrong:
            with pytest.raises(TypeError):
                await call(*args, **more)
        await bus.settled()
    assert sorted(map(str, got)) == ["('a', 3, 'b')", "('c', 4, '')"]


async def test_an_argument_that_this_version_lacks_waits_and_dies_with_its_name() -> None:
    app, got = App("a"), list[str]()

    @app.task(name="charge")
    async def old(order: str) -> None:
        got.append(order)

    newer = App("a")

    @newer.task(name="charge")
    async def new(order: str, currency: str = "EUR") -> None: ...

    body = new.call("a1", "USD").body
    async with in_memory(app, errors="keep") as bus:
        await app.bus().send(old.queue_address(), [old.stamp()(body)])
        await bus.advance(600)
        assert got == [] and bus.dead(old) == []
        await bus.advance(600)
        assert got == [] and "currency: Extra inputs are not permitted" in bus.dead(old)[0].reason


async def test_a_direct_call_says_which_injected_parameters_it_lacks() -> None:
    app = App("a")

    @app.task
    async def f(
        a: int, made: Annotated[str, Depends(made)] = INJECTED, delivery: Delivery = INJECTED
    ) -> str:
        return made

    with pytest.raises(
        TypeError, match="'f': expected made=, delivery= in a direct call, got none"
    ):
        await f(1)
    assert await f(1, made="x", delivery=None) == "x"  # type: ignore[arg-type]  # what a test may pass


@pytest.mark.parametrize("returns", ["key", "result"])
async def test_what_cannot_be_written_in_the_end_rolls_the_dependencies_back(returns: str) -> None:
    app, log, out = App("a"), list[str](), Topic("out", int, key=lambda n: {n})  # type: ignore[arg-type,return-value]  # no key

    async def session() -> AsyncIterator[int]:
        log.append("begin")
        try:
            yield 1
        except BaseException:
            log.append("rollback")
            raise
        log.append("commit")

    source = Topic("in", int)

    @app.subscriber(source, publish=out)
    async def stream(n: int, s: Annotated[int, Depends(session)]) -> int:
        return n

    @app.task
    async def job(n: int, s: Annotated[int, Depends(session)] = INJECTED) -> object:
        return object()

    async with in_memory(app, errors="keep") as bus:
        if returns == "key":
            await bus.publish(source, 1)
        else:
            await job.enqueue(1)
            await bus.settled()
        assert len(bus.dead(stream)) + len(bus.dead(job)) == 1
    assert log == ["begin", "rollback"]


async def test_raw_topics_carry_bytes_and_text_as_they_are() -> None:
    app, got = App("a"), list[object]()
    raw, text = Topic("raw", bytes), Topic("text", str)

    @app.subscriber(raw | text)
    async def see(body: bytes | str, kind: Annotated[str, Header("content-type")]) -> None:
        got.append((body, kind))

    async with in_memory(app) as bus:
        await bus.publish(raw, b"\xff[" * 100)
        await bus.publish(text, "hé")
    assert got == [
        (b"\xff[" * 100, "application/octet-stream"),
        ("hé", "text/plain; charset=utf-8"),
    ]


class Order(BaseModel):
    id: str


class Special(Order):
    more: int = 0


class Other(BaseModel):
    id: str


Number = NewType("Number", int)


@pytest.mark.parametrize(
    ("model", "annotation", "fits"),
    [
        (Order, Order, True),
        (Special, Order, True),
        (Order, Any, True),
        (Order, object, True),
        (Order, BaseModel, True),
        (Order, Order | None, True),
        (Order | None, Order | None, True),
        (dict[str, int], dict[str, Any], True),
        (int, float, True),
        (Number, int, True),
        (list[int], list[int], True),
        (Annotated[int, Field(ge=0)], int, True),
        (Order, Other, False),
        (Order, Special, False),
        (Order, dict, False),
        (Order | None, Order, False),
        (int, str, False),
        (list[int], list[str], False),
        (Order | Other, Order, False),
        (Order, Delivery, False),
    ],
)
async def test_the_body_is_what_its_topic_carries_or_refused_at_start(
    model: Any, annotation: Any, fits: bool
) -> None:
    app = App("a")

    async def see(body: Any) -> None: ...

    see.__annotations__["body"] = annotation
    app.subscriber(Topic("t", model))(see)
    if fits:
        async with in_memory(app):
            return
    with pytest.raises(
        ConfigError, match="'body' at .*see: expected '.*', which 't' carries, got "
    ):
        async with in_memory(app):
            pass


@pytest.mark.parametrize(
    ("returned", "fits"),
    [
        (Order, True),
        (Order | None, True),
        (Special, True),
        (dict[str, Any], True),
        (Any, True),
        (None, True),
        (AsyncIterator[Order], None),
        (Awaitable[Order], True),
        (AsyncIterator[Order], True),
        (Coroutine[Any, Any, Other], False),
        (AsyncIterator[Other], False),
        (Other, False),
        (str, False),
        (Order | Other, False),
        (list[Order], False),
    ],
)
async def test_what_a_function_returns_is_for_its_topic_or_refused_at_start(
    returned: Any, fits: bool | None
) -> None:
    app, source, out = App("a"), Topic("in", int), Topic("out", Order)

    async def give(n: int) -> Any: ...

    async def each(n: int) -> AsyncIterator[Order]:
        yield Order(id=str(n))

    function = each if fits is None else give
    function.__annotations__["return"] = returned
    app.subscriber(source, publish=out)(function)
    if fits is not False:
        async with in_memory(app):
            return
    with pytest.raises(
        ConfigError, match="expected what it returns to be 'Order', which 'out' carries, got "
    ):
        async with in_memory(app):
            pass


async def test_secrets_are_refused_where_they_are_sent_and_at_start() -> None:
    app = App("a", jobs="memory://")

    @app.task
    async def sign_in(password: SecretStr) -> None: ...

    async with in_memory(app):
        with pytest.raises(
            Invalid,
            match="'password' at sign_in: expected a value that can be written, got a secret",
        ):
            await sign_in.enqueue(SecretStr("x"))
    with pytest.raises(ConfigError, match="'password' at sign_in"):
        async with app:
            pass


async def test_later_counted_is_an_attempt() -> None:
    app, runs = App("a"), list[int]()

    @app.task
    async def f(delivery: Delivery = INJECTED) -> None:
        runs.append(delivery.attempt)
        raise RetryLater(1, "not yet", counted=True)

    async with in_memory(app, errors="keep") as bus:
        await f.enqueue()
        await bus.advance(60)
        assert runs == [1, 2, 3, 4, 5] and len(bus.dead(f)) == 1
