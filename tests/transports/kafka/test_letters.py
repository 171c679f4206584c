"""Dead letters: written before the group passes the record, whole, and gone when they are
purged."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from os import urandom
from unittest.mock import ANY

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from busline.core.address import Address
from busline.core.errors import ConfigError, Invalid, Unavailable
from busline.core.message import DeadLetter, Delivery, Message
from busline.core.outcome import ACKED, Acked, Keep, Outcome, Rejected, Send
from busline.core.ports import Receiver, Redriven
from busline.runtime.bus import Bus
from busline.runtime.engines import Engines as Both
from busline.testing.contract import Desk, bodies, message, nothing, receive
from busline.transports.kafka import carrier
from busline.transports.memory import MemoryTransport
from tests.transports.kafka.conftest import Engines, forbid


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

    assert (first.id, first.handler, first.reason, first.address) == (
        ids[0],
        "handle a",
        "no, says a",
        desk.other.name,
    )
    assert (second.id, second.handler, second.reason, second.address) == (
        ids[1],
        "handle b",
        "no, says b",
        desk.other.name,
    )
    assert await desk.transport.inspector.purge([ids[0]]) == 1
    assert (
        await desk.transport.inspector.dead(id=ids[0]) == []
        and (await only(desk, ids[1])).id == ids[1]
    )


async def test_a_dead_tombstone_is_no_purge(desk: Desk) -> None:
    await desk.transport.publish(
        desk.other, [Message("r", None, (("h", None),), b"k"), message(b"", id="s")]
    )
    receiver = await desk.read(desk.other)
    got = await receive(receiver, 2)
    await receiver.settle([(one, Rejected("no")) for one in got])

    gone, empty = [await only(desk, f"g{desk.mark}/{one.position}") for one in got]

    assert (gone.body, gone.key, gone.raw_headers) == (None, b"k", (("h", None),))
    assert (empty.body, empty.key, empty.raw_headers) == (b"", None, ())


async def test_what_is_no_letters_id_is_none(desk: Desk) -> None:
    assert [
        await desk.transport.inspector.dead(id=id) for id in ("", "x", "g/t/0@1", "no topic/t/0@1")
    ] == [[]] * 4
    assert await desk.transport.inspector.purge(["x", "g/t/0@1"]) == 0


async def test_a_topic_of_another_with_that_name_does_not_hurt(desk: Desk) -> None:
    await desk.transport.publish(
        Address("topic", f"their{desk.mark}.dead", 1), [message(b"x"), message(b"y", key=b"k")]
    )

    assert [
        one for one in await desk.transport.inspector.dead(limit=10_000) if desk.mark in one.address
    ] == []


async def test_a_group_that_no_topic_can_be_named_after_is_refused(desk: Desk) -> None:
    with pytest.raises(Invalid, match="expected a group whose name fits"):
        await desk.read(desk.other, group="a b")


async def late(receiver: Receiver, settled: Sequence[tuple[Delivery, Outcome]]) -> str:
    """What a settle says that cannot be done now; all others may be done meanwhile."""
    with pytest.raises((Unavailable, ConfigError)) as caught:
        await receiver.settle(settled)
    return str(caught.value)


async def test_a_partition_stops_where_its_dead_letter_cannot_be_written(
    desk: Desk, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "SOON", 0.5)
    admin, dead = await engines.admin(), f"{desk.orders.name}.g{desk.mark}.dead"
    await admin.create_topics([NewTopic(dead, 1, 1, topic_configs={"max.message.bytes": "100"})])
    await desk.transport.publish(desk.orders, [message(b"%d" % n, key=b"0") for n in range(5)])
    await desk.transport.publish(
        desk.orders, [message(b"other %d" % n, key=b"4") for n in range(2)]
    )
    receiver = await desk.read()
    got = {one.body: one for one in await receive(receiver, 7)}
    bad, outcome = got[b"1"], Rejected("no")
    rest = [(one, ACKED) for one in got.values() if one is not bad]

    assert "expected a topic that takes dead letters" in await late(
        receiver, [(bad, outcome), *rest]
    )
    await desk.transport.publish(
        desk.orders, [message(b"behind", key=b"0"), message(b"beside", key=b"4")]
    )
    assert (await receiver.settle(rest)).refused == []
    assert bodies(await receive(receiver, 1)) == [b"beside"] and await nothing(receiver)
    assert "expected a topic that takes dead letters" in await late(receiver, [(bad, outcome)])

    await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, dead, configs={"max.message.bytes": "100000"})]
    )
    async with asyncio.timeout(10):
        while True:
            with suppress(Unavailable):
                assert (await receiver.settle([(bad, outcome)])).refused == []
                break
    assert bodies(await receive(receiver, 1)) == [b"behind"]
    assert (await only(desk, f"g{desk.mark}/{bad.position}")).body == b"1"


async def test_an_output_that_is_forbidden_is_waited_for_and_written_once(
    desk: Desk, engines: Engines
) -> None:
    await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(2)])
    await desk.transport.publish(desk.orders, [])
    receiver = await desk.read(desk.other)
    sending, plain = await receive(receiver, 2)
    await forbid(engines, "topic", desk.orders.name)
    outcome = Acked((Send(desk.orders, message(b"sent")),))

    for _ in range(2):
        assert "expected the right to use it" in await late(
            receiver, [(plain, ACKED), (sending, outcome)]
        )
    await forbid(engines, "topic", desk.orders.name, "--remove")
    async with asyncio.timeout(20):
        while True:
            with suppress(ConfigError, Unavailable):
                assert (await receiver.settle([(plain, ACKED), (sending, outcome)])).refused == []
                break
            await asyncio.sleep(0.05)

    assert await desk.behind("g", desk.other, 0)
    assert bodies(await receive(await desk.read(desk.orders, group="sent"), 1)) == [b"sent"]
    assert await desk.transport.inspector.dead(id=f"g{desk.mark}/{sending.position}") == []


async def test_what_is_not_confirmed_soon_is_written_once_all_the_same(
    desk: Desk, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "SOON", 0.2)
    await desk.transport.publish(desk.other, [message()])
    receiver = await desk.read(desk.other)
    (got,) = await receive(receiver, 1)
    await desk.transport.publish(desk.orders, [message(b"before", key=b"k")])
    outcome = Acked((Send(desk.orders, message(b"sent", key=b"k")),))

    engines.kafka.signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            assert "to be confirmed, got nothing for 0.2 s" in await late(
                receiver, [(got, outcome)]
            )
    finally:
        engines.kafka.signal(signal.SIGCONT)
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                assert (await receiver.settle([(got, outcome)])).refused == []
                break
    await desk.transport.publish(desk.orders, [message(b"after", key=b"k")])

    assert bodies(await receive(await desk.read(desk.orders, group="sent"), 3)) == [
        b"before",
        b"sent",
        b"after",
    ]


# --- records that are too large for a letter -------------------------------------------------


async def large(desk: Desk, engines: Engines, body: bytes, **settings: str) -> Delivery:
    """A record of another client in a topic that takes it, dead."""
    await (await engines.admin()).create_topics(
        [NewTopic(desk.other.name, 1, 1, topic_configs=settings)]
    )
    other = AIOKafkaProducer(
        bootstrap_servers=engines.kafka.server,
        compression_type="gzip",
        max_request_size=20_000_000,
        max_batch_size=20_000_000,
    )
    await other.start()
    try:
        await other.send_and_wait(desk.other.name, body, key=b"k", headers=[("h", b"v")])
    finally:
        await other.stop()
    receiver = await desk.read(desk.other)
    (got,) = await receive(receiver, 1)
    got.handler = "handle"
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                assert (await receiver.settle([(got, Rejected("too large"))])).refused == []
                return got


async def test_a_record_that_was_compressed_has_a_compressed_letter(
    desk: Desk, engines: Engines
) -> None:
    got = await large(desk, engines, b"x" * 3_000_000)

    found = await only(desk, f"g{desk.mark}/{got.position}")

    assert (found.body, found.key, found.raw_headers, found.missing) == (
        b"x" * 3_000_000,
        b"k",
        (("h", b"v"),),
        None,
    )


async def test_a_letters_topic_takes_what_its_topic_takes(desk: Desk, engines: Engines) -> None:
    body = urandom(4_000_000)
    got = await large(desk, engines, body, **{"max.message.bytes": "4200000"})

    assert (await only(desk, f"g{desk.mark}/{got.position}")).body == body
    others = await engines.admin()
    await others.delete_records(
        {TopicPartition(desk.other.name, 0): RecordsToDelete(before_offset=-1)}
    )
    assert (await only(desk, f"g{desk.mark}/{got.position}")).body == body


async def test_a_letter_without_room_shows_the_record_as_long_as_it_is_there(
    desk: Desk, engines: Engines
) -> None:
    others, body = await engines.admin(), urandom(3_000_000)
    await others.create_topics(
        [
            NewTopic(
                f"{desk.other.name}.g{desk.mark}.dead",
                1,
                1,
                topic_configs={"cleanup.policy": "compact"},
            )
        ]
    )
    got = await large(desk, engines, body, **{"max.message.bytes": "4200000"})
    id = f"g{desk.mark}/{got.position}"

    found = await only(desk, id)
    assert (found.body, found.key, found.raw_headers, found.missing) == (
        body,
        b"k",
        (("h", b"v"),),
        None,
    )

    await others.delete_records(
        {TopicPartition(desk.other.name, 0): RecordsToDelete(before_offset=-1)}
    )
    gone = await only(desk, id)
    assert (gone.body, gone.key, gone.missing) == (
        None,
        None,
        f"{got.position} is not kept any more",
    )
    async with MemoryTransport(desk.clock) as jobs:
        bus = Bus(Both(desk.transport, jobs))
        assert await bus.redrive(desk.transport, [id]) == Redriven(0, (ANY,))
        assert await jobs.inspector.depth() == {}


async def test_what_an_outcome_sends_is_written_before_it_is_finished(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message()])
    receiver = await desk.read(desk.other)
    (got,) = await receive(receiver, 1)

    assert (
        await receiver.settle(
            [
                (
                    got,
                    Acked(
                        (Send(desk.orders, message(b"sent")), Send(desk.other, message(b"next")))
                    ),
                )
            ]
        )
    ).refused == []

    assert bodies(await receive(receiver, 1)) == [b"next"]
    assert bodies(await receive(await desk.read(desk.orders, group="sent"), 1)) == [b"sent"]


async def test_a_send_that_can_never_be_done_kills_its_own_record_alone(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(3)])
    receiver = await desk.read(desk.other)
    a, b, c = await receive(receiver, 3)
    wide = Acked((Send(desk.orders, message(b"." * 2_000_000)),))

    assert (
        await receiver.settle([(a, ACKED), (b, wide), (c, Acked((Keep("k", b"v", 1),)))])
    ).refused == []

    assert (await only(desk, f"g{desk.mark}/{b.position}")).error_type == "Invalid"
    assert "expected an engine that keeps facts" in (
        (await only(desk, f"g{desk.mark}/{c.position}")).error or ""
    )
    assert await desk.behind("g", desk.other, 0)


async def test_settling_again_writes_nothing_again(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message()])
    receiver, sent = await desk.read(desk.other), await desk.read(desk.orders, group="sent")
    (got,) = await receive(receiver, 1)
    outcome = Acked((Send(desk.orders, message(b"sent")),))
    await receiver.settle([(got, outcome)])

    assert (await receiver.settle([(got, outcome)])).refused == [got]

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

    assert [one.id for one in await inspector.dead(handlers=[desk.mark], limit=2)] == [
        first,
        second,
    ]
    await inspector.purge([second])

    assert [one.id for one in await inspector.dead(handlers=[desk.mark], after=second)] == [third]
