"""Wrong values at a call: refused where they are typed, nothing sent, no secret and no payload in
the text."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from busline import App, Header, Invalid, Queue, Retry, Topic
from busline.testing import TestBus, in_memory


class Order(BaseModel):
    id: str
    cents: int
    more: dict[str, Any] = {}


app = App("shop")
orders = Topic("orders", Order)
state = Topic("state", Order, compact=True)


@app.subscriber(orders)
async def bill(order: Order, who: Annotated[str, Header("who")]) -> None: ...


@app.task(queue=Queue("mail"))
async def send(n: int, extra: dict[str, Any] | None = None) -> int:
    return n


def nested(depth: int) -> dict[str, Any]:
    return {"d": nested(depth - 1)} if depth else {}


SECRET = "s3cret-" * 20
TABLE: list[tuple[str, Callable[[], Awaitable[Any]], str]] = [
    (
        "wrong argument",
        lambda: send.enqueue("x"),  # type: ignore[arg-type]  # the mistake
        (
            "'send': expected a value of its type, got n: Input should be a valid integer, unable"
            " to parse string as an integer. Give it what the annotation says."
        ),
    ),
    (
        "wrong model",
        lambda: app.publish(orders, {"id": SECRET}),  # type: ignore[misc]  # the mistake
        (
            "'orders': expected a value of its type, got cents: Field required. Give it what the"
            " annotation says."
        ),
    ),
    (
        "NaN",
        lambda: send.enqueue(1, {"deep": [float("nan")]}),
        (
            "'extra.deep.0' at send: expected a finite number, got nan. JSON has no NaN or"
            " infinity: send null or text instead."
        ),
    ),
    (
        "depth",
        lambda: app.publish(orders, Order(id="1", cents=1, more=nested(70))),
        "'orders': expected JSON at most 64 levels deep, got a deeper one. Flatten it.",
    ),
    (
        "size",
        lambda: app.publish(orders, Order(id="x" * 1_000_000, cents=1)),
        (
            "'orders': expected a body of at most 983040 bytes, got 1000029. Store it elsewhere and"
            " send its address."
        ),
    ),
    (
        "header name",
        lambda: app.publish(orders, Order(id="1", cents=1), headers={"a\nb": "c"}),
        (
            "'headers': expected names without control characters, got 'a\\nb'. Take line breaks"
            " and tabs out of the name."
        ),
    ),
    (
        "reserved header",
        lambda: app.publish(orders, Order(id="1", cents=1), headers={"busline-id": "c"}),
        (
            "'busline-id': expected a name that does not begin with 'busline-', got a reserved one."
            " Choose another name."
        ),
    ),
    (
        "headers too large",
        lambda: app.publish(orders, Order(id="1", cents=1), headers={"a": SECRET * 1000}),
        "'headers': expected at most 32768 bytes in all, got 140001. Put large values in the body.",
    ),
    (
        "no key",
        lambda: app.publish(state, Order(id="1", cents=1)),
        (
            "'state': expected a key, because the topic is compact, got None. Pass key=, or declare"
            " key= on the Topic."
        ),
    ),
    (
        "naive at",
        lambda: send.options(at=datetime(2026, 1, 1)).enqueue(1),
        (
            "'at': expected a datetime with a time zone, got 2026-01-01T00:00:00. Write"
            " datetime.now(UTC), or .astimezone()."
        ),
    ),
    (
        "both times",
        lambda: send.options(at=datetime.now().astimezone(), delay=1).enqueue(1),
        "'at': expected either delay= or at=, got both. Leave one out.",
    ),
    (
        "negative delay",
        lambda: send.options(delay=-1).enqueue(1),
        (
            "'delay': expected 0 seconds or more, a hundred years at most, got -1. Leave it out for"
            " the default."
        ),
    ),
    (
        "unknown queue",
        lambda: send.options(queue="nope").enqueue(1),
        "'nope': expected a queue that a task of 'shop' names (mail), got another. Correct queue=.",
    ),
    (
        "empty id",
        lambda: send.options(id="").enqueue(1),
        "'id': expected 1 to 512 printable characters, got ''. Shorten it, or hash it.",
    ),
    (
        "retry with classes",
        lambda: send.options(retry=Retry(2, on=OSError)).enqueue(1),
        (
            "'retry': expected a policy without on= and never=, got Retry(attempts=2, delay=1.0,"
            " factor=2.0, max_delay=300.0, ji. Put on= and never= into the task's declaration."
        ),
    ),
]


@pytest.mark.parametrize(
    ("call", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
async def test_a_wrong_value_is_refused_at_the_call_and_nothing_is_sent(
    call: Callable[[], Awaitable[Any]], expected: str
) -> None:
    async with in_memory(app) as bus:
        with pytest.raises(Invalid) as caught:
            await call()

        assert str(caught.value) == expected
        assert SECRET not in str(caught.value)
        assert await held(bus) == 0


async def held(bus: TestBus) -> int:
    """Everything the engine holds."""
    return len(bus.published(orders)) + len(bus.published(state)) + len(bus.enqueued(send))


BODIES: list[tuple[bytes, str]] = [
    (b"\xff{", "got '\\xff{' (body: Invalid JSON: expected value at line 1 column 1)"),
    (b'{"id":"1","cents":NaN}', "(cents: Input should be a finite number)"),
    (b'{"id":1}', "(id: Input should be a valid string; cents: Field required)"),
    (b"[" * 5000, "expected JSON at most 64 levels deep, got a deeper one. Flatten it."),
    (b'"' + b"x" * 1_000_000 + b'"', "expected a body of at most 983040 bytes, got 1000002."),
    (b'{"id":"1","cents":1}', "'who' at bill: expected a header of this name, got none."),
]


@pytest.mark.parametrize(
    ("body", "expected"), BODIES, ids=["rubbish", "nan", "type", "depth", "size", "header"]
)
async def test_a_wrong_record_is_dead_at_once_byte_for_byte(body: bytes, expected: str) -> None:
    async with in_memory(app, errors="keep") as bus:
        await bus.deliver(orders, body)

        letter = bus.dead(bill)[0]
        assert expected in letter.reason and letter.body == body
        assert letter.attempts == 1 and len(letter.reason) < 700


async def test_a_job_that_leaves_later_has_no_result_yet() -> None:
    said: list[str] = []

    async def asks(order: Order) -> None:
        job = await send.enqueue(1)
        for ask in (job.result, job.status):
            with pytest.raises(Invalid) as caught:
                await ask()
            said.append(str(caught.value))
        with pytest.raises(Invalid):
            _ = job.created

    async with in_memory(app, override={bill: asks}) as bus:
        await bus.publish(orders, Order(id="1", cents=1))
    assert said == [
        f"'{what}': expected a job that was sent, got one that leaves with this handler's outcome."
        " Enqueue it with options(now=True)."
        for what in ("result", "status")
    ]


async def test_a_closed_app_says_how_to_open_it() -> None:
    with pytest.raises(
        Invalid, match=r"'shop': expected an open App, got a closed one\. Write `async with shop:`"
    ):
        await app.publish(orders, Order(id="1", cents=1))
