"""The seventh golden program: a header that decides, and that goes on with all that is sent."""

import pytest
from examples.shop import Order, orders
from examples.tenants import app, index

from busline import INJECTED, App, ConfigError, Delivery, Retry, Topic
from busline.assembly import Run
from tests.stories.conftest import EVERY_PAIR, Tell
from tests.stories.test_streams import Item

ORDER = Order(id="a1", email="a@b.c", cents=5)
source, sink = Topic("source", Item, partitions=1), Topic("sink", Item, partitions=1)


@pytest.mark.parametrize("tell", EVERY_PAIR, indirect=True)
async def test_a_job_sees_the_tenant_that_nobody_passed_on(tell: Tell) -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    async def noted(order_id: str, delivery: Delivery = INJECTED) -> None:
        seen.append((order_id, delivery.headers.get("tenant"), delivery.headers.get("other")))

    async with tell(app, override={index: noted}) as story:
        await story.publish(orders, ORDER, headers={"tenant": "x", "other": "z"})
        await story.publish(orders, ORDER)
        (letter,) = await story.dead()

    assert seen == [("a1", "x", None)]
    assert letter.reason == "unknown tenant"


async def test_every_send_hands_it_on_and_its_own_value_wins(tell: Tell) -> None:
    app, seen = App("a", propagate=["tenant", "run"]), dict[str, list[bytes | None]]()

    @app.task
    async def note(which: str, delivery: Delivery = INJECTED) -> None:
        seen[which] = [value for name in ("tenant", "run") for value in delivery.headers_all(name)]

    @app.subscriber(source, publish=sink)
    async def handle(item: Item) -> Item:
        await note.enqueue("put aside")
        await note.options(now=True).enqueue("at once")
        await note.options(headers={"tenant": "own"}).enqueue("own")
        return item

    @app.subscriber(sink)
    async def returned(item: Item, delivery: Delivery) -> None:
        seen["returned"] = [*delivery.headers_all("tenant"), *delivery.headers_all("run")]

    async with tell(app) as story:
        await story.deliver(source, b'{"n": 1}', headers=[("tenant", b"x"), ("run", None)])
        await note.enqueue("outside")
        await story.settled()

    assert seen == {
        "put aside": [b"x", None],
        "at once": [b"x", None],
        "own": [b"own", None],
        "returned": [b"x", None],
        "outside": [],
    }


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("tenant", "'propagate': expected a list of headers' names, got 'tenant'"),
        (["a\n"], "'headers': expected names without control characters"),
    ],
)
def test_what_cannot_be_handed_on_is_said_at_start(names: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        App("a", streams="memory://", jobs="memory://", propagate=names).assemble(Run())


async def test_more_headers_than_a_message_may_have_are_refused_where_they_are_sent(
    tell: Tell,
) -> None:
    app = App("a", propagate=["tenant"])

    @app.task
    async def note() -> None: ...

    @app.subscriber(source, retry=Retry(1))
    async def handle(item: Item) -> None:
        await note.options(headers={"long": "y" * 20_000}).enqueue()

    async with tell(app) as story:
        await story.publish(source, Item(n=1), headers={"tenant": "x" * 20_000})
        (letter,) = await story.dead()

    assert "'headers': expected at most 32768 bytes in all" in (letter.error or "")
