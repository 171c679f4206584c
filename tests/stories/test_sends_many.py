"""A function that sends very much: in linear time, with ids that its next run repeats, and others
run meanwhile."""

import asyncio

from busline import App, Invalid, Retry, Topic
from busline.core.message import Delivery, Message
from busline.runtime.sending import SENDS_LIMIT, Sends, record_job_id
from busline.testing import in_memory

numbers, out = Topic("numbers", int, partitions=1), Topic("out", int, partitions=1)


async def test_others_run_while_a_function_sends() -> None:
    app, turns = App("a", publishes=[out]), list[int]()

    async def others() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    @app.subscriber(numbers)
    async def fan(n: int) -> None:
        beside = asyncio.create_task(others())
        for one in range(n):
            await app.publish(out, one)
        beside.cancel()

    async with in_memory(app) as bus:
        await bus.publish(numbers, 3000)
        assert len(bus.published(out)) == 3000
    assert len(turns) >= 30


async def test_what_is_too_much_is_refused_and_the_rest_may_go_at_once() -> None:
    app, refused = App("a", publishes=[out]), list[str]()

    @app.subscriber(numbers, retry=Retry(1))
    async def fan(n: int) -> None:
        try:
            await app.publish_many(out, range(n))
        except Invalid as error:
            refused.append(str(error))
            await app.publish(out, -1, now=True)

    async with in_memory(app) as bus:
        await bus.publish(numbers, SENDS_LIMIT + 1)
        assert "Send the rest at once, with now=True." in refused[0]
        assert len(bus.published(out)) == SENDS_LIMIT + 1


def ids(sends: list[tuple[str, bytes]]) -> list[str]:
    delivery, kept = (
        Delivery(Message("m", b"", at=1.0), "numbers", 1, "numbers/0@7", None, None),
        Sends(),
    )
    delivery.handler = "fan"
    return [
        record_job_id(delivery, kept, queue, Message("", body, task="do")) for queue, body in sends
    ]


def test_equal_sends_have_ids_of_their_own_in_whatever_order_they_come() -> None:
    first = ids([("a", b"1"), ("a", b"1"), ("b", b"1"), ("a", b"2")])
    swapped = ids([("a", b"2"), ("b", b"1"), ("a", b"1"), ("a", b"1")])

    assert len(set(first)) == 4 and set(first) == set(swapped)
