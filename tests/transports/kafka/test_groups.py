"""Where a group begins, how far it is, and what happens when its members change."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete

from busline.core.address import Address
from busline.core.message import Delivery
from busline.core.outcome import RELEASED
from busline.core.ports import Receiver
from busline.testing.contract import Desk, ack, bodies, message, nothing, receive
from busline.transports.kafka import KafkaTransport
from busline.transports.kafka.beginning import Beginning, between
from busline.transports.kafka.reader import Reader
from tests.transports.kafka.conftest import Engines


async def fill(desk: Desk, topic: Address, count: int) -> None:
    await desk.transport.publish(topic, [message(b"%d" % n, key=b"%d" % n) for n in range(count)])


async def committed(desk: Desk, group: str, topic: Address) -> dict[int, int]:
    """As another client sees it."""
    transport = desk.transport
    assert isinstance(transport, KafkaTransport)
    found = await transport.admin.offsets(group + desk.mark)
    return {place.partition: offset for place, offset in found.items() if place.topic == topic.name}


async def assigned(receiver: Receiver, count: int) -> None:
    """Waits until a reader has so many partitions, and knows where they begin."""
    assert isinstance(receiver, Reader)
    async with asyncio.timeout(30):
        while True:
            trackers = receiver._member.trackers.values()
            if (
                len(trackers) == count
                and all(one.frontier is not None for one in trackers)
                and not receiver._member._leaving
            ):
                return
            await asyncio.sleep(0.02)


class Taking:
    """Receives and settles in the background, as a worker does, until it is stopped."""

    def __init__(self, receiver: Receiver, pause: float = 0.0) -> None:
        self.finished: list[bytes | None] = []
        self.refused: list[bytes | None] = []
        self._receiver, self._pause = receiver, pause
        self._task = asyncio.ensure_future(self._take())

    async def _take(self) -> None:
        while True:
            got = await self._receiver.receive(10)
            await asyncio.sleep(self._pause)
            refused = await ack(self._receiver, got)
            self.refused += bodies(refused)
            self.finished += [one.body for one in got if one not in refused]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def together(*takers: Taking, count: int) -> list[bytes | None]:
    """What they finish, until it is so much."""
    async with asyncio.timeout(40):
        while sum(len(one.finished) for one in takers) < count:
            await asyncio.sleep(0.02)
    for one in takers:
        await one.stop()
    return [body for one in takers for body in one.finished]


async def test_a_latest_group_stands_before_it_is_entered(desk: Desk) -> None:
    await fill(desk, desk.other, 3)

    await desk.read(desk.other, group="new", start="latest")

    assert await committed(desk, "new", desk.other) == {0: 3}


async def test_a_latest_group_stands_on_a_new_topic_though_others_of_it_live(
    desk: Desk, engines: Engines
) -> None:
    await fill(desk, desk.other, 3)
    await assigned(await desk.read(desk.orders), 4)
    other = await engines.desk()

    await other.read(desk.other, start="latest")

    assert await committed(desk, "g", desk.other) == {0: 3}
    assert await desk.behind("g", desk.other, 0)


async def test_processes_that_are_new_together_agree_where_they_begin(
    desk: Desk, engines: Engines
) -> None:
    await fill(desk, desk.orders, 8)
    other = await engines.desk()

    await asyncio.gather(desk.read(start="latest"), other.read(start="latest"))

    stands = await committed(desk, "g", desk.orders)
    assert len(stands) == 4 and sum(stands.values()) == 8


async def test_what_comes_while_nobody_listens_is_read_later(desk: Desk) -> None:
    await fill(desk, desk.other, 3)
    first = desk.beside(desk.transport)
    await first.read(desk.other, group="new", start="latest")
    await first.stack.aclose()
    await desk.transport.publish(desk.other, [message(b"new")])

    assert bodies(await receive(await desk.read(desk.other, group="new", start="latest"), 1)) == [
        b"new"
    ]


async def test_partitions_that_appear_later_are_read_from_their_beginning(
    desk: Desk, engines: Engines
) -> None:
    await fill(desk, desk.other, 3)
    reader = await desk.read(desk.other, group="new", start="latest")
    await assigned(reader, 1)
    await (await engines.admin()).create_partitions({desk.other.name: NewPartitions(3)})
    other = await engines.open()
    await other.publish(desk.other._replace(partitions=3), [message(b"%d" % n) for n in range(9)])
    assert isinstance(reader, Reader)
    await reader._member.consumer._client.force_metadata_update()

    got = await receive(reader, 9)

    assert {one.body for one in got} == {b"%d" % n for n in range(9)}


async def test_a_partition_without_a_leader_keeps_nobody_from_the_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(desk, desk.orders, 40)
    assert isinstance(desk.transport, KafkaTransport)
    client = desk.transport.admin._client
    led, described = asyncio.Event(), client.describe_topics

    async def one_has_no_leader(topics: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await described(topics)
        for part in found[0]["partitions"]:
            part["leader"] = -1 if part["partition"] == 2 and not led.is_set() else part["leader"]
        return found

    monkeypatch.setattr(client, "describe_topics", one_has_no_leader)
    taking = Taking(await desk.read())
    async with asyncio.timeout(20):
        while (
            set(desk.host.waiting) != {f"{desk.orders.name}/2"}
            or len(await committed(desk, "g", desk.orders)) < 3
        ):
            await asyncio.sleep(0.02)
    assert "a leader that answers" in desk.host.waiting[f"{desk.orders.name}/2"]

    led.set()

    assert len(await together(taking, count=40)) == 40
    assert desk.host.waiting == {}


async def test_records_that_were_deleted_are_counted_and_passed_over(
    desk: Desk, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(desk, desk.other, 10)
    first = desk.beside(desk.transport)
    reader = await first.read(desk.other)
    await ack(reader, await receive(reader, 2))
    await first.stack.aclose()
    await (await engines.admin()).delete_records(
        {TopicPartition(desk.other.name, 0): RecordsToDelete(before_offset=7)}
    )

    reader = await desk.read(desk.other)

    assert bodies(await receive(reader, 3)) == [b"7", b"8", b"9"]
    assert isinstance(reader, Reader) and desk.host.gaps == 5
    assert "5 records were deleted before they were read" in caplog.text


async def test_records_that_are_deleted_under_a_reader_are_counted_too(
    desk: Desk, engines: Engines
) -> None:
    await fill(desk, desk.other, 10)
    reader = await desk.read(desk.other, ahead=1)
    held = await receive(reader, 1)
    assert isinstance(reader, Reader)
    (tracker,) = reader._member.trackers.values()
    await (await engines.admin()).delete_records({tracker.place: RecordsToDelete(before_offset=8)})
    tracker.source = None  # as if nothing had been fetched ahead
    reader._member.consumer.seek(tracker.place, 1)
    await ack(reader, held)

    assert bodies(await receive(reader, 1)) == [b"8"]
    assert desk.host.gaps == 7


async def test_an_idle_group_is_not_behind_what_is_no_record(desk: Desk, engines: Engines) -> None:
    await fill(desk, desk.other, 2)
    producer = AIOKafkaProducer(bootstrap_servers=engines.kafka.server, transactional_id=desk.mark)
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(desk.other.name, b"kept")
        with pytest.raises(RuntimeError):
            async with producer.transaction():
                await producer.send_and_wait(desk.other.name, b"aborted")
                raise RuntimeError
    finally:
        await producer.stop()
    reader = await desk.read(desk.other)

    taking = Taking(reader)

    assert await together(taking, count=3) == [b"0", b"1", b"kept"]
    # whoever waits passes over the ends of transactions
    waiting = asyncio.ensure_future(receive(reader, 1))
    assert await desk.behind("g", desk.other, 0)
    waiting.cancel()


async def test_what_an_open_transaction_holds_back_is_behind(desk: Desk, engines: Engines) -> None:
    await fill(desk, desk.other, 1)
    producer = AIOKafkaProducer(bootstrap_servers=engines.kafka.server, transactional_id=desk.mark)
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(desk.other.name, b"open")
            await fill(desk, desk.other, 3)
            reader = await desk.read(desk.other)
            await ack(reader, await receive(reader, 1))

            assert await desk.behind("g", desk.other, 4)
    finally:
        await producer.stop()


async def test_lag_is_what_kafkas_own_tool_says(desk: Desk, engines: Engines) -> None:
    await fill(desk, desk.other, 5)
    reader = await desk.read(desk.other)
    await ack(reader, await receive(reader, 2))
    assert await desk.behind("g", desk.other, 3)

    said = await asyncio.to_thread(
        engines.kafka.tool, "groups", "--describe", "--group", f"g{desk.mark}"
    )

    (line,) = [one.split() for one in said.splitlines() if desk.other.name in one]
    assert line[2:6] == ["0", "2", "5", "3"]


async def test_a_member_that_joins_and_one_that_leaves_repeat_nothing_that_finished(
    desk: Desk, engines: Engines
) -> None:
    await fill(desk, desk.orders, 400)
    others = [await engines.desk(), await engines.desk()]
    first = Taking(await desk.read(order="key"), 0.02)
    second_reader = await others[0].read(order="key")
    second = Taking(second_reader, 0.02)
    await assigned(second_reader, 2)
    third_reader = await others[1].read(order="key")
    third = Taking(third_reader, 0.02)
    await assigned(third_reader, 1)
    await second.stop()
    await others[0].stack.aclose()

    found = await together(first, second, third, count=400)

    assert len(found) == len(set(found)) == 400
    assert first.refused == second.refused == third.refused == []
    assert await desk.behind("g", desk.orders, 0)


def running(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    """As if their functions had begun and not ended."""
    for one in deliveries:
        one.sends = []
    return deliveries


async def test_what_has_ended_and_waits_for_a_broker_keeps_its_partition_beyond_the_drain(
    engines: Engines,
) -> None:
    slow, quick = await engines.desk(drain=0.1), await engines.desk(drain=0.1)
    await fill(slow, slow.orders, 20)
    reader = await slow.read()
    held = await receive(reader, 20)
    theirs = await quick.read()
    assert isinstance(reader, Reader)
    async with asyncio.timeout(20):
        while not reader._member._leaving:
            await asyncio.sleep(0.02)
    await asyncio.sleep(1)  # ten times the drain

    assert await ack(reader, held) == [] and slow.host.recalled == []
    await assigned(theirs, 2)


async def test_what_outlives_the_drain_is_recalled_and_runs_elsewhere(engines: Engines) -> None:
    slow, quick = await engines.desk(drain=1.0), await engines.desk(drain=1.0)
    await fill(slow, slow.orders, 20)
    reader = await slow.read()
    held = running(await receive(reader, 20))
    theirs = await quick.read()
    got = await asyncio.wait_for(receive(theirs, 1), 20)

    moved = {one.position for one in slow.host.recalled}
    assert got[0].position in moved and len({str(one).partition("@")[0] for one in moved}) == 2
    assert {one.position for one in await ack(reader, held)} == moved
    assert await ack(theirs, got) == []


async def test_what_stays_goes_on_while_others_come_and_go(engines: Engines) -> None:
    one = await engines.desk(drain=1.0)
    await fill(one, one.orders, 40)
    reader = await one.read(order="none")
    held = running(await receive(reader, 40))
    for _ in range(2):
        other = await engines.desk(drain=1.0)
        await assigned(await other.read(order="none"), 2)
        await other.stack.aclose()
        await assigned(reader, 4)

    moved = {delivery.position for delivery in one.host.recalled}
    stayed = [delivery for delivery in held if delivery.position not in moved]
    assert len({str(delivery.position).partition("@")[0] for delivery in stayed}) == 2
    assert await ack(reader, stayed) == []
    await ack(reader, await receive(reader, len(moved)))
    assert await one.behind("g", one.orders, 0)


async def test_a_log_that_lost_its_end_goes_on_there(desk: Desk) -> None:
    await fill(desk, desk.other, 10)
    reader = await desk.read(desk.other)
    await ack(reader, await receive(reader, 10))
    assert await desk.behind("g", desk.other, 0)
    assert isinstance(reader, Reader)
    (tracker,) = reader._member.trackers.values()
    tracker.source = None
    tracker.go_on_at(60)  # as if fifty more had been read, which the log does not have any more
    reader._member.committer.moved()
    reader._member.consumer.seek(tracker.place, 60)
    waiting = asyncio.ensure_future(receive(reader, 1))
    async with asyncio.timeout(20):
        while reader._member.trackers[tracker.place] is tracker:
            await asyncio.sleep(0.02)

    await desk.transport.publish(desk.other, [message(b"new")])

    assert bodies(await waiting) == [b"new"]
    async with asyncio.timeout(10):
        while await committed(desk, "g", desk.other) != {0: 10}:
            await asyncio.sleep(0.02)


async def test_a_topic_of_another_id_is_read_from_its_beginning(desk: Desk) -> None:
    await fill(desk, desk.other, 10)
    reader = await desk.read(desk.other)
    await ack(reader, await receive(reader, 10))
    assert isinstance(reader, Reader)
    (tracker,) = reader._member.trackers.values()
    tracker.topic = b"another"
    tracker.source = None
    tracker.go_on_at(60)
    reader._member.consumer.seek(tracker.place, 60)

    assert len(await receive(reader, 10)) == 10


def test_where_a_group_goes_on() -> None:
    assert between(5, [(7, 9)], 0, 20) == Beginning(5, 5, ahead=[(7, 9)])
    assert between(5, [(7, 9), (12, 30)], 8, 20) == Beginning(
        8, 5, deleted=2, ahead=[(8, 9), (12, 20)]
    )  # 5 and 6
    assert between(50, [(60, 70)], 0, 20) == Beginning(20, 50, cut=30)


async def test_what_is_settled_while_partitions_are_taken_away_counts(engines: Engines) -> None:
    one, other = await engines.desk(), await engines.desk()
    await fill(one, one.orders, 20)
    reader = await one.read()
    held = await receive(reader, 20)
    theirs = await other.read()
    assert isinstance(reader, Reader)
    async with asyncio.timeout(10):
        while not reader._member._leaving:
            await asyncio.sleep(0.01)

    assert await ack(reader, held) == []

    assert one.host.recalled == []
    assert await one.behind("g", one.orders, 0)
    assert await nothing(theirs)


async def test_slow_functions_leave_the_member_in_its_group(engines: Engines) -> None:
    desk = await engines.desk(session=2.0)
    await fill(desk, desk.orders, 20)
    reader = await desk.read(ahead=1)
    held = await receive(reader, 4)
    assert isinstance(reader, Reader)
    consumer, before = reader._member.consumer, reader._member.committer.membership
    consumer._coordinator._max_poll_interval = 1.0
    waiting = asyncio.ensure_future(reader.receive(10))

    await asyncio.sleep(3.5)  # the real broker's time is what this is about

    assert (consumer._coordinator.generation, consumer._coordinator.member_id) == before
    assert desk.host.recalled == [] and await ack(reader, held) == []
    assert len(await waiting) == 4


async def test_a_commit_after_the_group_went_on_is_refused_and_moves_nothing(
    desk: Desk, engines: Engines
) -> None:
    await fill(desk, desk.other, 10)
    reader = await desk.read(desk.other)
    held = await receive(reader, 5)
    assert isinstance(reader, Reader)
    member = reader._member
    member.committer.membership = member.committer.membership._replace(
        generation=member.committer.membership.generation - 1
    )
    member.consumer._coordinator.generation -= 1  # as one that missed a rebalance believes

    await ack(reader, held)
    async with asyncio.timeout(10):
        while not all(one.over for one in member.committer.trackers):
            await asyncio.sleep(0.02)

    assert await committed(desk, "g", desk.other) == {0: 0}


async def test_a_topic_that_is_made_anew_is_read_from_its_beginning(
    desk: Desk, engines: Engines
) -> None:
    await fill(desk, desk.other, 50)
    reader = await desk.read(desk.other)
    await ack(reader, await receive(reader, 40))
    admin = await engines.admin()
    await admin.delete_topics([desk.other.name])
    assert isinstance(reader, Reader)
    await reader._member.consumer._client.force_metadata_update()
    await reader._member.committer.commit()
    async with asyncio.timeout(10):
        while desk.other.name in await admin.list_topics():
            await asyncio.sleep(0.02)
    fresh = await engines.desk()
    await fresh.transport.publish(desk.other, [message(b"new %d" % n) for n in range(80)])
    taking = Taking(reader)
    await reader._member.consumer._client.force_metadata_update()

    async with asyncio.timeout(40):
        while len([body for body in taking.finished if (body or b"").startswith(b"new")]) < 80:
            await asyncio.sleep(0.05)
    await taking.stop()


async def test_released_records_come_again_in_their_order(desk: Desk) -> None:
    await fill(desk, desk.other, 6)
    reader = await desk.read(desk.other, order="none")
    got = await receive(reader, 4)
    await reader.settle([(one, RELEASED) for one in reversed(got)])

    assert bodies(await receive(reader, 6)) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_two_topics_are_read_by_one_group(desk: Desk) -> None:
    await fill(desk, desk.orders, 4)
    await fill(desk, desk.other, 4)

    got = await receive(await desk.read(desk.orders, desk.other), 8)

    assert {one.address for one in got} == {desk.orders.name, desk.other.name}


async def test_a_part_that_dies_is_heard_of(desk: Desk) -> None:
    await fill(desk, desk.other, 1)
    reader = await desk.read(desk.other)
    assert isinstance(reader, Reader)
    waiting = asyncio.ensure_future(reader.receive(10))
    await ack(reader, await waiting)

    async def dies() -> None:
        raise ZeroDivisionError

    reader._member._start(dies(), "part")

    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(10):
            await reader.receive(10)
