"""What an engine with topics does: records, partitions, groups."""

import asyncio
from dataclasses import replace

import pytest

from busline.core.address import Address
from busline.core.errors import Invalid
from busline.core.ids import new_id
from busline.core.message import Message
from busline.core.outcome import ACKED, RELEASED, Rejected, Retried
from busline.core.partition import partition
from busline.core.served import Served
from busline.testing.clock import SimClock
from busline.testing.contract.desk import (
    Contract,
    Desk,
    Open,
    ack,
    bodies,
    failed,
    is_told,
    message,
    nothing,
    receive,
)


class Topics(Contract):
    """Records go to every group, in order, each until it is finished."""

    async def test_records_of_one_key_come_in_order_in_one_lane(self, desk: Desk) -> None:
        receiver = await desk.read()
        await desk.transport.publish(desk.orders, [message(b"%d" % n, key=b"k") for n in range(5)])

        got = await receive(receiver, 5)

        assert bodies(got) == [b"0", b"1", b"2", b"3", b"4"]
        assert len({one.lane for one in got}) == 1
        assert [one.attempt for one in got] == [1] * 5

    async def test_each_group_sees_every_record(self, desk: Desk) -> None:
        one, other = await desk.read(group="one"), await desk.read(group="other")
        await desk.transport.publish(desk.orders, [message(b"%d" % n) for n in range(8)])

        assert (
            set(bodies(await receive(one, 8)))
            == set(bodies(await receive(other, 8)))
            == {b"%d" % n for n in range(8)}
        )

    async def test_lanes_follow_the_order_asked_for(self, desk: Desk) -> None:
        by_key, free = (
            await desk.read(group="k", order="key"),
            await desk.read(group="n", order="none"),
        )
        await desk.transport.publish(desk.other, [])
        await desk.transport.publish(
            desk.orders, [message(key=b"a"), message(key=b"b"), message(key=b"a")]
        )

        lanes = {one.key: one.lane for one in await receive(by_key, 3)}

        assert lanes[b"a"] != lanes[b"b"]
        assert all(one.lane is None for one in await receive(free, 3))

    async def test_what_is_not_settled_comes_again_to_the_next_reader(self, desk: Desk) -> None:
        await desk.transport.publish(desk.orders, [message(b"%d" % n, key=b"k") for n in range(4)])
        first = desk.beside(desk.transport)
        got = await receive(await first.read(), 4)
        await first.stack.aclose()

        again = await receive(await desk.read(), 4)

        assert bodies(again) == bodies(got)

    async def test_a_released_record_is_handed_out_again_before_those_behind_it(
        self, desk: Desk
    ) -> None:
        await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(3)])
        receiver = await desk.read(desk.other)
        got = await receive(receiver, 2)
        await receiver.settle([(got[0], RELEASED), (got[1], ACKED)])

        assert bodies(await receive(receiver, 2)) == [b"0", b"2"]

    async def test_one_partition_runs_only_so_far_ahead(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(10)])
        receiver = await desk.read(desk.other, ahead=3)
        got = await receive(receiver, 3)

        assert await nothing(receiver)
        await ack(receiver, got[:1])
        assert bodies(await receive(receiver, 1)) == [b"3"]

    async def test_a_full_partition_leaves_room_for_the_others(self, desk: Desk) -> None:
        await desk.transport.publish(
            desk.orders,
            [message(b"slow", key=b"a") for _ in range(50)] + [message(b"other", key=b"c")],
        )
        receiver = await desk.read()

        assert b"other" in bodies(await receiver.receive(10)) or b"other" in bodies(
            await receiver.receive(10)
        )

    async def test_a_new_group_begins_where_it_says(self, desk: Desk, clock: SimClock) -> None:
        await desk.transport.publish(desk.other, [message(b"old", at=clock.time())])
        clock.move(10)
        latest = await desk.read(desk.other, group="latest", start="latest")
        await desk.transport.publish(desk.other, [message(b"new", at=clock.time())])

        assert bodies(await receive(latest, 1)) == [b"new"]
        assert bodies(await receive(await desk.read(desk.other, group="all"), 2)) == [
            b"old",
            b"new",
        ]
        assert bodies(
            await receive(await desk.read(desk.other, group="since", start=clock.time() - 5), 1)
        ) == [b"new"]

    async def test_a_record_says_where_it_stands(self, desk: Desk) -> None:
        receiver = await desk.read()
        await desk.transport.publish(
            desk.orders, [message(id=f"r{n}", key=b"k%d" % n, at=5.0) for n in range(20)]
        )

        got = await receive(receiver, 20)

        assert len({one.position for one in got}) == 20
        for one in got:
            assert (
                one.key is not None and one.position is not None and one.address == desk.orders.name
            )
            assert one.position.partition("@")[0] == f"{desk.orders.name}/{partition(one.key, 4)}"
            assert one.message.at == 5.0 and one.in_lane
        assert {one.id for one in got} == {f"r{n}" for n in range(20)}

    async def test_a_partition_is_one_lane_unless_the_order_is_by_key(self, desk: Desk) -> None:
        whole, by_key = (
            await desk.read(desk.other, group="p"),
            await desk.read(desk.other, group="k", order="key"),
        )
        await desk.transport.publish(
            desk.other, [message(key=b"a"), message(), message(key=b"b"), message()]
        )

        assert len({one.lane for one in await receive(whole, 4)}) == 1
        a, keyless, b, other = (one.lane for one in await receive(by_key, 4))
        assert len({a, b, keyless}) == 3 and other == keyless

    async def test_what_is_finished_beyond_a_released_record_is_passed_over(
        self, desk: Desk
    ) -> None:
        await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(5)])
        receiver = await desk.read(desk.other, order="none")
        got = await receive(receiver, 3)
        await receiver.settle([(got[0], RELEASED), (got[1], ACKED), (got[2], ACKED)])

        assert [bodies(await receive(receiver, 1, limit=1)) for _ in range(3)] == [
            [b"0"],
            [b"3"],
            [b"4"],
        ]

    @pytest.mark.parametrize("limit", [1, 3, 10])
    async def test_a_busy_partition_starves_no_other(self, desk: Desk, limit: int) -> None:
        wide = Address("topic", "wide", 8)
        await desk.transport.publish(wide, [message(key=b"%d" % n) for n in range(400)])
        receiver, seen = await desk.read(wide), set[object]()

        for _ in range(16):
            got = await receiver.receive(limit)
            assert 1 <= len(got) <= limit
            seen.update(one.lane for one in got)
            await ack(receiver, got)

        assert len(seen) == 8

    async def test_a_record_that_asks_for_a_retry_is_given_back(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message(b"x")])
        receiver = await desk.read(desk.other)
        await receiver.settle([((await receive(receiver, 1))[0], Retried(60, ValueError()))])

        again = (await receive(receiver, 1))[0]

        assert (again.body, again.attempt) == (b"x", 1)

    async def test_the_number_of_partitions_is_compared_at_start(self, desk: Desk) -> None:
        await desk.transport.publish(desk.orders, [])
        await desk.read(desk.orders)
        wrong = Address("topic", desk.orders.name, 5)
        with pytest.raises(Invalid, match=f"'{desk.orders.name}': expected partitions=4"):
            await desk.transport.publish(wrong, [])
        for group in ("g", "new"):
            with pytest.raises(Invalid, match=f"'{desk.orders.name}': expected partitions=4"):
                await desk.read(wrong, group=group)

        await desk.transport.publish(Address("topic", desk.orders.name), [message(b"x")])

        assert await desk.behind("g", desk.orders, 1)
        assert await desk.transport.inspector.partitions(desk.orders.name) == 4
        assert await desk.transport.inspector.partitions(f"none{desk.mark}") == 0

    async def test_a_cancelled_read_loses_and_repeats_nothing(self, desk: Desk) -> None:
        receiver, seen = await desk.read(desk.other), list[bytes | None]()
        for n in range(30):
            waiting = asyncio.ensure_future(receiver.receive(1))
            await asyncio.sleep(0)
            await desk.transport.publish(desk.other, [message(b"%d" % n)])
            waiting.cancel()
            found = (await asyncio.gather(waiting, return_exceptions=True))[0]
            seen += bodies(found if isinstance(found, list | tuple) else await receive(receiver, 1))

        assert seen == [b"%d" % n for n in range(30)]

    async def test_lag_counts_what_a_group_has_not_finished(self, desk: Desk) -> None:
        receiver = await desk.read()
        await desk.transport.publish(desk.orders, [message(key=b"%d" % n) for n in range(6)])
        got = await receive(receiver, 6)
        await ack(receiver, got[:2])

        assert await desk.behind("g", desk.orders, 4)
        (lag,) = await desk.transport.inspector.lag([f"g{desk.mark}"])
        assert (lag.partitions, lag.members) == (4, 1)
        assert await desk.transport.inspector.lag(["nobody"]) == []

    async def test_headers_keys_and_bodies_of_records_travel_byte_for_byte(
        self, desk: Desk
    ) -> None:
        headers = (
            ("ce_id", b"1"),
            ("trash", b"\xc3\x28"),
            ("ce_id", b"2"),
            ("none", None),
            ("é", b""),
        )
        await desk.transport.publish(
            desk.other,
            [
                message(b"\x00\xff", key=b"\xff", headers=headers),
                Message(new_id(), None, key=b"gone"),
                message(b""),
            ],
        )

        record, tombstone, empty = await receive(await desk.read(desk.other), 3)

        assert (record.body, record.key, record.message.headers) == (b"\x00\xff", b"\xff", headers)
        assert (tombstone.body, tombstone.key, empty.body, empty.key) == (None, b"gone", b"", None)
        assert record.headers["ce_id"] == "2" and record.headers_all("ce_id") == (b"1", b"2")

    async def test_the_next_reader_goes_on_where_the_last_one_left(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(4)])
        second = desk.beside(await engine())
        receiver = await desk.read(desk.other)
        await ack(receiver, await receive(receiver, 2))
        await desk.stack.aclose()
        clock.move(1.1)

        assert bodies(await receive(await second.read(desk.other), 2)) == [b"2", b"3"]
        await second.stack.aclose()

    async def test_a_dead_record_is_kept_whole_and_passed_over(self, desk: Desk) -> None:
        headers = (("h", b"\xff"), ("h", None))
        await desk.transport.publish(
            desk.other, [message(b"bad", key=b"k", headers=headers, at=5.0), message(b"good")]
        )
        receiver = await desk.read(desk.other)
        got, rest = await receive(receiver, 2)
        got.handler = "bill"
        await receiver.settle([(got, Rejected("no", failed()))])

        (letter,) = await desk.transport.inspector.dead(handlers=["bill"])

        assert (letter.address, letter.position, letter.handler, letter.attempts) == (
            desk.other.name,
            got.position,
            "bill",
            1,
        )
        assert (letter.body, letter.key, letter.raw_headers) == (b"bad", b"k", headers)
        assert (letter.reason, letter.error_type, letter.error) == ("no", "ValueError", "why")
        assert is_told(letter)
        assert (letter.at, letter.group) == (5.0, f"g{desk.mark}")
        assert await desk.behind("g", desk.other, 1)
        assert await ack(receiver, [rest]) == []

    async def test_a_dead_record_gets_another_body_and_keeps_the_rest(self, desk: Desk) -> None:
        await desk.transport.publish(
            desk.other,
            [message(b"bad", key=b"k", headers=(("h", None),)), replace(message(), body=None)],
        )
        receiver, inspector = await desk.read(desk.other), desk.transport.inspector
        got, own = await receive(receiver, 2), [f"bill{desk.mark}"]
        for each in got:
            each.handler = own[0]
        await receiver.settle([(each, Rejected("no", failed())) for each in got])
        letters = await inspector.dead(handlers=own)

        for one in letters:
            assert await inspector.mend(one.id, b"good")
        assert not await inspector.mend(f"{letters[0].id}0", b"good")

        mended = await inspector.dead(handlers=own)
        assert [one.body for one in mended] == [b"good", b"good"] and all(map(is_told, mended))
        assert [replace(one, body=None) for one in mended] == [
            replace(one, body=None) for one in letters
        ]

    async def test_a_look_at_a_topic_shows_its_last_records_and_takes_none(
        self, desk: Desk
    ) -> None:
        assert await desk.transport.inspector.peek(desk.orders, 3) == []
        for n in range(9):
            await desk.transport.publish(
                desk.orders,
                [message(b"%d" % n, key=b"%d" % n, headers=(("h", b"\xff"),), at=5.0 + n)],
            )

        seen = await desk.transport.inspector.peek(desk.orders, 3)
        whole = await desk.transport.inspector.peek(desk.orders, 20)

        assert bodies(seen) == [b"6", b"7", b"8"] and bodies(whole) == [b"%d" % n for n in range(9)]
        assert (seen[0].key, seen[0].message.headers, seen[0].message.at, seen[0].attempt) == (
            b"6",
            (("h", b"\xff"),),
            11.0,
            1,
        )
        got = {one.position: one.body for one in await receive(await desk.read(), 9)}
        assert got == {one.position: one.body for one in whole}

    async def test_dead_records_are_paged_filtered_and_purged(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message() for _ in range(5)])
        receiver, inspector = await desk.read(desk.other), desk.transport.inspector
        got = await receive(receiver, 5)
        for n, one in enumerate(got):
            one.handler = f"odd{desk.mark}" if n % 2 else f"even{desk.mark}"
        await receiver.settle([(one, Rejected("no")) for one in got])
        both = [f"odd{desk.mark}", f"even{desk.mark}"]
        letters = await inspector.dead(handlers=both)

        assert [one.position for one in letters] == [one.position for one in got]
        ids = [one.id for one in letters]
        assert [
            one.id for one in await inspector.dead(handlers=both, limit=2, after=ids[1])
        ] == ids[2:4]
        assert [one.id for one in await inspector.dead(handlers=both[:1])] == [ids[1], ids[3]]
        assert [one.position for one in await inspector.dead(id=ids[4])] == [got[4].position]
        assert await inspector.purge([ids[0], ids[1], "nobody"]) == 2
        assert [one.id for one in await inspector.dead(handlers=both)] == ids[2:]

    async def test_dead_records_are_told_apart_by_group_and_topic(self, desk: Desk) -> None:
        inspector, died = desk.transport.inspector, dict[tuple[str, str], list[str | None]]()
        for topic in (desk.orders, desk.other):
            await desk.transport.publish(topic, [message(), message()])
            for group in ("a", "b"):
                receiver = await desk.read(topic, group=group)
                got = await receive(receiver, 2)
                for one in got:
                    one.handler = "same"
                await receiver.settle([(one, Rejected("no")) for one in got])
                died[topic.name, group + desk.mark] = [one.position for one in got]

        for (topic_name, group), positions in died.items():
            of = [Served(topic_name, group)]
            letters = await inspector.dead(served=of, handlers=["same"])
            assert sorted(str(one.position) for one in letters) == sorted(map(str, positions))
            assert {one.served for one in letters} == set(of)
            assert [one.id for one in await inspector.dead(served=of, after=letters[0].id)] == [
                letters[1].id
            ]
            assert [one[:3] for one in await inspector.standing(of)] == [(*of, "same", 2)]
        everything = [Served(*one) for one in died]
        assert len(await inspector.dead(served=everything)) == 8
        assert [one.died_at for one in await inspector.dead(served=everything)] == sorted(
            one.died_at for one in await inspector.dead(served=everything)
        )
