"""Dead letters: written before the group passes the record, whole, and gone when they are purged."""

import asyncio

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from busline.core.address import Address
from busline.core.errors import Invalid
from busline.core.message import DeadLetter, Message
from busline.core.outcome import ACKED, Acked, Keep, Rejected, Send
from busline.testing.contract import Desk, bodies, message, nothing, receive
from busline.transports.kafka import reader
from tests.transports.kafka.conftest import Engines


async def only(desk: Desk, id: str) -> DeadLetter:
    (letter,) = await desk.transport.inspector.dead(id=id)
    return letter


async def test_a_letter_names_its_group_and_where_it_came_from(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message(b"bad", id="r")])
    ids = []
    for group in ("a", "b"):
        receiver = await desk.read(desk.other, group=group)
        (got,) = await receive(receiver, 1)
        got.handler = f"handle {group}"
        await receiver.settle([(got, Rejected(f"no, says {group}"))])
        ids.append(f"{group}{desk.mark}/{got.position}")

    first, second = [await only(desk, id) for id in ids]

    assert (first.id, first.handler, first.reason, first.address) == (ids[0], "handle a", "no, says a", desk.other.name)
    assert (second.id, second.handler, second.reason, second.address) == (ids[1], "handle b", "no, says b", desk.other.name)
    assert await desk.transport.inspector.purge([ids[0]]) == 1
    assert await desk.transport.inspector.dead(id=ids[0]) == [] and (await only(desk, ids[1])).id == ids[1]


async def test_a_dead_tombstone_is_no_purge(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [Message("r", None, (("h", None),), b"k"), message(b"", id="s")])
    receiver = await desk.read(desk.other)
    got = await receive(receiver, 2)
    await receiver.settle([(one, Rejected("no")) for one in got])

    gone, empty = [await only(desk, f"g{desk.mark}/{one.position}") for one in got]

    assert (gone.body, gone.key, gone.raw_headers) == (None, b"k", (("h", None),))
    assert (empty.body, empty.key, empty.raw_headers) == (b"", None, ())


async def test_what_is_no_letters_id_is_none(desk: Desk) -> None:
    assert [await desk.transport.inspector.dead(id=id) for id in ("", "x", "g/t/0@1", "no topic/t/0@1")] == [[]] * 4
    assert await desk.transport.inspector.purge(["x", "g/t/0@1"]) == 0


async def test_a_topic_of_another_with_that_name_does_not_hurt(desk: Desk) -> None:
    await desk.transport.publish(Address("topic", f"their{desk.mark}.dead", 1), [message(b"x"), message(b"y", key=b"k")])

    assert [one for one in await desk.transport.inspector.dead(limit=10_000) if desk.mark in one.address] == []


async def test_a_group_that_no_topic_can_be_named_after_is_refused(desk: Desk) -> None:
    with pytest.raises(Invalid, match="expected a group whose name fits"):
        await desk.read(desk.other, group="a b")


async def test_a_partition_stops_where_its_dead_letter_cannot_be_written(
    desk: Desk, engines: Engines, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "AGAIN", 0.1)
    admin, dead = await engines.admin(), f"{desk.other.name}.g{desk.mark}.dead"
    await admin.create_topics([NewTopic(dead, 1, 1, topic_configs={"max.message.bytes": "100"})])
    await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(5)])
    receiver = await desk.read(desk.other)
    bad, good = await receive(receiver, 2)

    assert await receiver.settle([(bad, Rejected("no"))]) == []
    assert await receiver.settle([(good, ACKED), (good, ACKED), (bad, ACKED)]) == [good, bad]

    assert "stops, for its dead letter cannot be written" in caplog.text
    assert await nothing(receiver)
    assert await desk.behind("g", desk.other, 5)
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, dead, configs={"max.message.bytes": "100000"})])
    assert bodies(await receive(receiver, 3)) == [b"2", b"3", b"4"]
    assert await desk.behind("g", desk.other, 3)


async def test_what_an_outcome_sends_is_written_before_it_is_finished(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message()])
    receiver = await desk.read(desk.other)
    (got,) = await receive(receiver, 1)

    assert await receiver.settle([(got, Acked((Send(desk.orders, message(b"sent")), Send(desk.other, message(b"next")))))]) == []

    assert bodies(await receive(receiver, 1)) == [b"next"]
    assert bodies(await receive(await desk.read(desk.orders, group="sent"), 1)) == [b"sent"]


async def test_a_send_that_can_never_be_done_kills_its_own_record_alone(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(3)])
    receiver = await desk.read(desk.other)
    a, b, c = await receive(receiver, 3)
    wide = Acked((Send(desk.orders, message(b"." * 2_000_000)),))

    assert await receiver.settle([(a, ACKED), (b, wide), (c, Acked((Keep("k", b"v", 1),)))]) == []

    assert (await only(desk, f"g{desk.mark}/{b.position}")).error_type == "Invalid"
    assert "expected an engine that keeps facts" in ((await only(desk, f"g{desk.mark}/{c.position}")).error or "")
    assert await desk.behind("g", desk.other, 0)


async def test_settling_again_writes_nothing_again(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message()])
    receiver, sent = await desk.read(desk.other), await desk.read(desk.orders, group="sent")
    (got,) = await receive(receiver, 1)
    outcome = Acked((Send(desk.orders, message(b"sent")),))
    await receiver.settle([(got, outcome)])

    assert await receiver.settle([(got, outcome)]) == [got]

    await receive(sent, 1)
    await asyncio.sleep(0.2)  # what might come is on its way by now
    assert await nothing(sent)


async def test_a_reason_of_any_length_fits_its_letter(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message(b"." * 600_000)])
    receiver = await desk.read(desk.other)
    (got,) = await receive(receiver, 1)

    await receiver.settle([(got, Rejected("no " * 200_000))])

    (letter,) = await desk.transport.inspector.dead(id=f"g{desk.mark}/{got.position}")
    assert len(letter.reason) < 9000


async def test_a_page_goes_on_where_the_last_letter_was_purged_meanwhile(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message(), message(), message()])
    receiver = await desk.read(desk.other)
    for one in await receive(receiver, 3):
        desk.clock.move(1)
        one.handler = desk.mark
        await receiver.settle([(one, Rejected("no"))])
    inspector = desk.transport.inspector
    first, second, third = [one.id for one in await inspector.dead(handlers=[desk.mark])]

    assert [one.id for one in await inspector.dead(handlers=[desk.mark], limit=2)] == [first, second]
    await inspector.purge([second])

    assert [one.id for one in await inspector.dead(handlers=[desk.mark], after=second)] == [third]
