"""Topics where reads and settles cross, and where a process is taken for dead meanwhile."""

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest

from busline.core.address import Address
from busline.core.outcome import ACKED, RELEASED
from busline.testing.contract import MAIL, OTHER, ack, bodies, message, receive
from busline.transports.sqlite import topics
from tests.transports.sqlite.conftest import Engines

ORDERS = Address("topic", "orders", 4)


async def test_a_record_given_back_during_a_read_is_not_passed_over(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(b"%d" % n) for n in range(4)])
    reader = await desk.read(OTHER, order="none")
    got = await receive(reader, 2)
    real, giving = topics.read, asyncio.Event()
    loop = asyncio.get_running_loop()

    def read(
        db: sqlite3.Connection, wants: Sequence[tuple[int, int, int, int]], limit: int, size: int
    ) -> list[list[Any]]:
        found = real(db, wants, limit, size)
        if not giving.is_set():
            loop.call_soon_threadsafe(giving.set)
            asyncio.run_coroutine_threadsafe(_rewind(), loop)
        return found

    async def _rewind() -> None:
        reader._owned["other"].frontiers[0].rewind(got[0].receipt[2])  # type: ignore[attr-defined]  # as a settle does

    monkeypatch.setattr(topics, "read", read)

    assert bodies(await receive(reader, 3)) == [b"0", b"2", b"3"]


async def test_behind_a_full_hand_the_rest_is_found(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(b"%d" % n) for n in range(30)])
    reader = await desk.read(OTHER, order="none")
    got = await receive(reader, 20)
    await reader.settle([(got[0], RELEASED)])
    assert bodies(await receive(reader, 1, limit=1)) == [b"0"]

    async with asyncio.timeout(0.5):
        assert bodies(await receive(reader, 10, limit=1)) == [b"%d" % n for n in range(20, 30)]


async def test_a_settle_of_two_topics_by_one_taken_for_dead_is_refused_whole(
    engines: Engines,
) -> None:
    desk = await engines.desk()
    more = Address("topic", "more", 1)
    await desk.transport.publish(OTHER, [message(b"a")])
    await desk.transport.publish(more, [message(b"b")])
    reader = await desk.read(OTHER, more)
    got = await receive(reader, 2)
    await engines.take_for_dead()

    assert await ack(reader, got) == got
    assert desk.host.recalled == got
    assert sorted(bodies(await receive(reader, 2)), key=str) == [b"a", b"b"]
    assert await ack(reader, await receive(await desk.take(), 0)) == []


async def test_every_receiver_of_one_taken_for_dead_goes_on(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(b"a")])
    await desk.transport.publish(MAIL, [message(b"b")])
    reader, taker = await desk.read(OTHER), await desk.take()
    records, jobs = await receive(reader, 1), await receive(taker, 1)
    await engines.take_for_dead()

    late = await asyncio.gather(
        ack(reader, records), ack(taker, jobs), receive(await desk.read(OTHER, group="x"), 1)
    )

    assert [len(one) for one in late] == [1, 1, 1]
    assert bodies(await receive(reader, 1)) + bodies(await receive(taker, 1)) == [b"a", b"b"]


async def test_a_new_number_is_taken_once_however_many_find_the_old_one_gone(
    engines: Engines,
) -> None:
    transport = await engines.open()
    other = await engines.take_for_dead()

    await asyncio.gather(*[transport.neighbours.lost() for _ in range(3)])

    numbers = await other.file.read(
        lambda db: [row[0] for row in db.execute("SELECT n FROM worker ORDER BY n")]
    )
    assert numbers == [other.process.n, transport.process.n]


async def test_partitions_share_what_room_there_is(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(ORDERS, [message(b"%d" % n) for n in range(400)])
    reader = await desk.read(ORDERS)

    got = await reader.receive(100)

    parts = [one.receipt[1] for one in got]
    assert [parts.count(n) for n in range(4)] == [25, 25, 25, 25]


async def test_a_record_without_key_is_in_its_partitions_lane(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(), message(), message(key=b"k")])
    reader = await desk.read(OTHER, order="key")

    first, second, keyed = [one.lane for one in await receive(reader, 3)]

    assert first == second != keyed


async def test_a_rejected_record_is_finished(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(b"%d" % n) for n in range(3)])
    reader = await desk.read(OTHER, order="none")
    got = await receive(reader, 3)
    await reader.settle([(got[2], ACKED), (got[0], RELEASED)])
    await desk.stack.aclose()

    again = await (await engines.desk()).read(OTHER)

    assert bodies(await receive(again, 2)) == [b"0", b"1"]
