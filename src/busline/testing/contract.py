"""What every transport must do: subclass TransportContract, give it the two fixtures, and run it with pytest.

`engine` opens transports on one engine: `await engine()` for the first, again for another process's. `clock` is theirs.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from busline.core.address import Address
from busline.core.clock import Clock
from busline.core.ids import new_id
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, RELEASED, Acked, Keep, Rejected, Retried, Send
from busline.core.ports import Receiver, Subscription, Transport
from busline.testing.clock import SimClock

ORDERS = Address("topic", "orders", 4)
OTHER = Address("topic", "other", 1)
MAIL = Address("queue", "mail")
Open = Callable[[], Awaitable[Transport]]


class Recorder:
    """A host that notes what is recalled."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.recalled: list[Delivery] = []

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        self.recalled += deliveries


class Desk:
    """Receivers of one transport, left when the test ends."""

    def __init__(self, transport: Transport, clock: SimClock) -> None:
        self.transport, self.clock = transport, clock
        self.host = Recorder(clock)
        self.stack = AsyncExitStack()

    async def read(self, *addresses: Address, group: str = "g", **options: object) -> Receiver:
        subscription = Subscription(addresses or (ORDERS,), group, **options)  # type: ignore[arg-type]  # a test's options
        return await self.stack.enter_async_context(self.transport.subscribe(subscription, self.host))

    async def take(self, *queues: Address) -> Receiver:
        return await self.stack.enter_async_context(self.transport.subscribe(Subscription(queues or (MAIL,)), self.host))


def message(body: bytes = b"{}", **fields: object) -> Message:
    return Message(str(fields.pop("id", "")) or new_id(), body, **fields)  # type: ignore[arg-type]  # a test's fields


async def receive(receiver: Receiver, count: int, limit: int = 100) -> list[Delivery]:
    """Exactly so many deliveries; fails after a real 10 s."""
    found: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await receiver.receive(min(limit, count - len(found)))
    return found


async def nothing(receiver: Receiver, clock: SimClock) -> bool:
    """Whether nothing comes within a moment."""
    waiting = asyncio.ensure_future(receiver.receive(10))
    for _ in range(50):
        await asyncio.sleep(0.001)
    waiting.cancel()
    return (await asyncio.gather(waiting, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def ack(receiver: Receiver, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    return await receiver.settle([(one, ACKED) for one in deliveries])


def bodies(deliveries: Sequence[Delivery]) -> list[bytes | None]:
    return [one.body for one in deliveries]


class TransportContract:
    """The ports, sentence by sentence."""

    @pytest.fixture
    async def desk(self, engine: Open, clock: SimClock) -> AsyncGenerator[Desk]:
        desk = Desk(await engine(), clock)
        yield desk
        await desk.stack.aclose()

    # --- topics --------------------------------------------------------------------------------------------

    async def test_records_of_one_key_come_in_order_in_one_lane(self, desk: Desk) -> None:
        receiver = await desk.read()
        await desk.transport.publish(ORDERS, [message(b"%d" % n, key=b"k") for n in range(5)])

        got = await receive(receiver, 5)

        assert bodies(got) == [b"0", b"1", b"2", b"3", b"4"]
        assert len({one.lane for one in got}) == 1
        assert [one.attempt for one in got] == [1] * 5

    async def test_each_group_sees_every_record(self, desk: Desk) -> None:
        one, other = await desk.read(group="one"), await desk.read(group="other")
        await desk.transport.publish(ORDERS, [message(b"%d" % n) for n in range(8)])

        assert set(bodies(await receive(one, 8))) == set(bodies(await receive(other, 8))) == {b"%d" % n for n in range(8)}

    async def test_lanes_follow_the_order_asked_for(self, desk: Desk) -> None:
        by_key, free = await desk.read(group="k", order="key"), await desk.read(group="n", order="none")
        await desk.transport.publish(OTHER, [])
        await desk.transport.publish(ORDERS, [message(key=b"a"), message(key=b"b"), message(key=b"a")])

        lanes = {one.key: one.lane for one in await receive(by_key, 3)}

        assert lanes[b"a"] != lanes[b"b"]
        assert all(one.lane is None for one in await receive(free, 3))

    async def test_what_is_not_settled_comes_again_to_the_next_reader(self, desk: Desk, engine: Open, clock: SimClock) -> None:
        await desk.transport.publish(ORDERS, [message(b"%d" % n, key=b"k") for n in range(4)])
        first = Desk(desk.transport, clock)
        got = await receive(await first.read(), 4)
        await first.stack.aclose()

        again = await receive(await desk.read(), 4)

        assert bodies(again) == bodies(got)

    async def test_what_finished_out_of_order_is_not_repeated(self, desk: Desk, clock: SimClock) -> None:
        await desk.transport.publish(ORDERS, [message(b"%d" % n, key=b"k") for n in range(4)])
        first = Desk(desk.transport, clock)
        receiver = await first.read(order="none")
        got = await receive(receiver, 4)
        await ack(receiver, [got[1], got[3]])
        await first.stack.aclose()

        again = await receive(await desk.read(), 2)

        assert bodies(again) == [b"0", b"2"]
        assert await nothing(await desk.read(group="empty", start="latest"), clock)

    async def test_a_released_record_is_handed_out_again_before_those_behind_it(self, desk: Desk) -> None:
        await desk.transport.publish(OTHER, [message(b"%d" % n) for n in range(3)])
        receiver = await desk.read(OTHER)
        got = await receive(receiver, 2)
        await receiver.settle([(got[0], RELEASED), (got[1], ACKED)])

        assert bodies(await receive(receiver, 2)) == [b"0", b"2"]

    async def test_one_partition_runs_only_so_far_ahead(self, desk: Desk, clock: SimClock) -> None:
        await desk.transport.publish(OTHER, [message(b"%d" % n) for n in range(10)])
        receiver = await desk.read(OTHER, ahead=3)
        got = await receive(receiver, 3)

        assert await nothing(receiver, clock)
        await ack(receiver, got[:1])
        assert bodies(await receive(receiver, 1)) == [b"3"]

    async def test_a_full_partition_leaves_room_for_the_others(self, desk: Desk) -> None:
        await desk.transport.publish(ORDERS, [message(b"slow", key=b"a") for _ in range(50)] + [message(b"other", key=b"c")])
        receiver = await desk.read()

        assert b"other" in bodies(await receiver.receive(10)) or b"other" in bodies(await receiver.receive(10))

    async def test_a_new_group_begins_where_it_says(self, desk: Desk, clock: SimClock) -> None:
        await desk.transport.publish(OTHER, [message(b"old", at=clock.time())])
        clock.move(10)
        latest = await desk.read(OTHER, group="latest", start="latest")
        await desk.transport.publish(OTHER, [message(b"new", at=clock.time())])

        assert bodies(await receive(latest, 1)) == [b"new"]
        assert bodies(await receive(await desk.read(OTHER, group="all"), 2)) == [b"old", b"new"]
        assert bodies(await receive(await desk.read(OTHER, group="since", start=clock.time() - 5), 1)) == [b"new"]

    async def test_a_group_is_read_by_one_and_the_next_takes_over(self, desk: Desk, engine: Open, clock: SimClock) -> None:
        await desk.transport.publish(OTHER, [message(b"%d" % n) for n in range(2)])
        second = Desk(await engine(), clock)
        receiver = await desk.read(OTHER)
        standby = await second.read(OTHER)
        await ack(receiver, await receive(receiver, 1))
        assert await nothing(standby, clock)

        await desk.stack.aclose()
        clock.move(1.1)

        assert bodies(await receive(standby, 1)) == [b"1"]
        await second.stack.aclose()

    async def test_headers_keys_and_bodies_travel_byte_for_byte(self, desk: Desk) -> None:
        headers = (("ce_id", b"1"), ("trash", b"\xc3\x28"), ("ce_id", b"2"), ("none", None), ("é", b""))
        await desk.transport.publish(OTHER, [message(b"\x00\xff", key=b"\xff", headers=headers), Message(new_id(), None, key=b"gone")])
        await desk.transport.publish(MAIL, [message(b"", headers=headers)])

        record, tombstone = await receive(await desk.read(OTHER), 2)
        job = (await receive(await desk.take(), 1))[0]

        assert (record.body, record.key, record.message.headers) == (b"\x00\xff", b"\xff", headers)
        assert tombstone.body is None and job.body == b"" and job.message.headers == headers
        assert record.headers["ce_id"] == "2" and record.headers_all("ce_id") == (b"1", b"2")

    # --- queues --------------------------------------------------------------------------------------------

    async def test_a_job_goes_to_one_taker_first_come_first_served(self, desk: Desk, engine: Open, clock: SimClock) -> None:
        second = Desk(await engine(), clock)
        one, other = await desk.take(), await second.take()
        await desk.transport.publish(MAIL, [message(b"%d" % n) for n in range(4)])

        first, rest = await receive(one, 2), await receive(other, 2)

        assert bodies(first) + bodies(rest) == [b"0", b"1", b"2", b"3"]
        await second.stack.aclose()

    async def test_a_waiting_receiver_is_woken_by_another_process(self, desk: Desk, engine: Open, clock: SimClock) -> None:
        receiver = await desk.take()
        waiting = asyncio.ensure_future(receive(receiver, 1))
        await asyncio.sleep(0.01)

        await (await engine()).publish(MAIL, [message(b"now")])

        assert bodies(await waiting) == [b"now"]

    async def test_a_delayed_job_starts_when_it_is_due(self, desk: Desk, clock: SimClock) -> None:
        receiver = await desk.take()
        await desk.transport.publish(MAIL, [message(b"later", due=clock.time() + 60)])
        assert await nothing(receiver, clock)

        waiting = asyncio.ensure_future(receive(receiver, 1))
        await asyncio.sleep(0.01)
        clock.move(60.01)

        assert bodies(await waiting) == [b"later"]

    async def test_a_retried_job_comes_again_counted_or_not(self, desk: Desk, clock: SimClock) -> None:
        await desk.transport.publish(MAIL, [message(id="j")])
        receiver = await desk.take()
        for counted, attempt in ((True, 2), (False, 2), (True, 3)):
            got = await receive(receiver, 1)
            await receiver.settle([(got[0], Retried(5, ValueError(), counted))])
            assert (await desk.transport.inspector.depth())["mail"].retrying == 1
            clock.move(5.01)
            again = await receive(receiver, 1)
            assert again[0].attempt == attempt
            await receiver.settle([(again[0], RELEASED)])

    async def test_a_released_job_is_handed_out_again_not_counted(self, desk: Desk) -> None:
        await desk.transport.publish(MAIL, [message()])
        receiver = await desk.take()
        await receiver.settle([((await receive(receiver, 1))[0], RELEASED)])

        assert (await receive(receiver, 1))[0].attempt == 1

    async def test_leaving_gives_back_what_is_in_hand(self, desk: Desk, clock: SimClock) -> None:
        await desk.transport.publish(MAIL, [message(b"%d" % n) for n in range(3)])
        first = Desk(desk.transport, clock)
        await receive(await first.take(), 2)
        await first.stack.aclose()

        assert sorted(bodies(await receive(await desk.take(), 3)), key=str) == [b"0", b"1", b"2"]

    async def test_a_cancelled_receive_loses_nothing(self, desk: Desk) -> None:
        receiver = await desk.take()
        for n in range(30):
            waiting = asyncio.ensure_future(receiver.receive(1))
            await asyncio.sleep(0)
            await desk.transport.publish(MAIL, [message(b"%d" % n)])
            waiting.cancel()
            found = (await asyncio.gather(waiting, return_exceptions=True))[0]
            got = found if isinstance(found, list | tuple) else await receive(receiver, 1)
            assert bodies(got) == [b"%d" % n]
            await ack(receiver, got)

    async def test_an_id_that_is_remembered_gives_the_first_job(self, desk: Desk, clock: SimClock) -> None:
        publish, receiver = desk.transport.publish, await desk.take()
        first = message(id="x", remember=100.0)
        assert await publish(MAIL, [first]) == {}
        assert await publish(MAIL, [message(), message(id="x", remember=100.0)]) == {1: "x"}

        await ack(receiver, await receive(receiver, 2))
        assert await publish(MAIL, [message(id="x", remember=100.0)]) == {0: "x"}
        clock.move(101)
        assert await publish(MAIL, [message(id="x", remember=100.0)]) == {}

    async def test_a_unique_key_is_a_lock_until_the_job_is_final(self, desk: Desk, clock: SimClock) -> None:
        publish, receiver = desk.transport.publish, await desk.take()
        await publish(MAIL, [message(id="a", unique="k")])
        got = await receive(receiver, 1)
        assert await publish(MAIL, [message(unique="k")]) == {0: "a"}
        await receiver.settle([(got[0], Retried(1, ValueError()))])
        assert await publish(MAIL, [message(unique="k")]) == {0: "a"}
        clock.move(1.1)

        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])

        assert await publish(MAIL, [message(unique="k")]) == {}

    # --- settling ------------------------------------------------------------------------------------------

    async def test_effects_are_applied_with_the_outcome(self, desk: Desk) -> None:
        await desk.transport.publish(OTHER, [message()])
        reader, taker = await desk.read(OTHER), await desk.take()
        got = (await receive(reader, 1))[0]
        effects = (Send(MAIL, message(b"sent")), Keep("k", b"v", 60), Send(OTHER, message(b"next")))

        assert await reader.settle([(got, Acked(effects))]) == []

        assert bodies(await receive(taker, 1)) == [b"sent"]
        assert bodies(await receive(reader, 1)) == [b"next"]
        assert await desk.transport.store.get(["k", "no"]) == [b"v", None]

    async def test_settling_again_does_nothing(self, desk: Desk, clock: SimClock) -> None:
        await desk.transport.publish(MAIL, [message()])
        receiver = await desk.take()
        got = (await receive(receiver, 1))[0]
        effects = Acked((Send(MAIL, message(b"sent")),))
        await receiver.settle([(got, effects)])

        assert await receiver.settle([(got, effects)]) == [got]

        await ack(receiver, await receive(receiver, 1))
        assert await nothing(receiver, clock)

    async def test_any_mix_settles_each_in_its_way(self, desk: Desk) -> None:
        await desk.transport.publish(MAIL, [message(b"%d" % n) for n in range(4)])
        receiver = await desk.take()
        a, b, c, d = await receive(receiver, 4)
        await receiver.settle([(a, ACKED), (b, Rejected("bad")), (c, Retried(60, ValueError())), (d, RELEASED)])

        depth = (await desk.transport.inspector.depth())["mail"]

        assert (depth.waiting, depth.retrying, depth.running) == (1, 1, 0)
        assert bodies(await receive(receiver, 1)) == [b"3"]
        assert [one.body for one in await desk.transport.inspector.dead()] == [b"1"]

    async def test_counts_say_what_became_of_each_handler(self, desk: Desk) -> None:
        await desk.transport.publish(MAIL, [message() for _ in range(4)])
        receiver = await desk.take()
        got = await receive(receiver, 4)
        for one in got:
            one.handler = "send"
        await receiver.settle([(got[0], ACKED), (got[1], Rejected("")), (got[2], Retried(9, ValueError())), (got[3], Acked(skipped=True))])
        await receiver.settle([(got[0], ACKED)])

        counts = (await desk.transport.inspector.counts())["send"]

        assert (counts.handled, counts.dead, counts.retried, counts.skipped, counts.refused) == (1, 1, 1, 1, 1)

    # --- dead letters --------------------------------------------------------------------------------------

    async def test_a_dead_job_is_kept_whole_and_runs_again_when_redriven(self, desk: Desk) -> None:
        headers = (("h", b"\xff"), ("h", None))
        await desk.transport.publish(MAIL, [message(b"body", id="j", task="send", headers=headers)])
        receiver, inspector = await desk.take(), desk.transport.inspector
        got = (await receive(receiver, 1))[0]
        got.handler = "send"
        await receiver.settle([(got, Rejected("no", ValueError("why")))])

        letter = (await inspector.dead())[0]
        assert (letter.id, letter.body, letter.raw_headers, letter.reason) == ("j", b"body", headers, "no")
        assert (letter.error_type, letter.error, letter.attempts, letter.position) == ("ValueError", "why", 1, None)
        assert (await inspector.look("j")).state == "failed"

        assert await inspector.redrive(["j", "nobody"]) == (1, ())
        again = (await receive(receiver, 1))[0]
        assert (again.id, again.message.task, again.attempt, again.message.headers) == ("j", "send", 1, headers)
        assert await inspector.dead() == []

    async def test_a_dead_record_goes_back_to_its_group_alone(self, desk: Desk) -> None:
        await desk.transport.publish(OTHER, [message(b"bad", key=b"k")])
        reader, others, inspector = await desk.read(OTHER), await desk.read(OTHER, group="others"), desk.transport.inspector
        got = (await receive(reader, 1))[0]
        got.handler = "bill"
        await receive(others, 1)
        await reader.settle([(got, Rejected("no"))])
        letter = (await inspector.dead(handlers=["bill"]))[0]
        assert (letter.address, letter.position, letter.handler) == ("other", got.position, "bill")

        await inspector.redrive([letter.id])
        redriven = await desk.take(Address("queue", "~g"))
        again = (await receive(redriven, 1))[0]

        assert (again.address, again.position, again.body, again.key, again.message.task) == ("other", got.position, b"bad", b"k", "bill")
        again.handler = "bill"
        await redriven.settle([(again, Rejected("still"))])
        letter = (await inspector.dead())[0]
        assert (letter.address, letter.position, letter.reason) == ("other", got.position, "still")
        assert (await inspector.redrive([letter.id])).again == 1

    async def test_dead_letters_are_paged_filtered_and_purged(self, desk: Desk) -> None:
        await desk.transport.publish(MAIL, [message(id=f"j{n}") for n in range(5)])
        receiver, inspector = await desk.take(), desk.transport.inspector
        got = await receive(receiver, 5)
        for n, one in enumerate(got):
            one.handler = "odd" if n % 2 else "even"
        await receiver.settle([(one, Rejected("no")) for one in got])

        page = await inspector.dead(limit=2)
        assert [one.id for one in page] == ["j0", "j1"]
        assert [one.id for one in await inspector.dead(limit=2, after="j1")] == ["j2", "j3"]
        assert [one.id for one in await inspector.dead(handlers=["odd"])] == ["j1", "j3"]
        assert [one.id for one in await inspector.dead(id="j4")] == ["j4"]
        assert await inspector.purge(["j0", "j1", "nobody"]) == 2
        assert len(await inspector.dead()) == 3

    async def test_a_redrive_that_meets_a_living_unique_job_is_refused(self, desk: Desk) -> None:
        await desk.transport.publish(MAIL, [message(id="a", unique="k")])
        receiver = await desk.take()
        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])
        await desk.transport.publish(MAIL, [message(id="b", unique="k")])

        done = await desk.transport.inspector.redrive(["a"])

        assert done.again == 0 and "'a'" in done.refused[0]
        assert len(await desk.transport.inspector.dead()) == 1

    # --- facts and looks -----------------------------------------------------------------------------------

    async def test_facts_live_for_their_time(self, desk: Desk, clock: SimClock) -> None:
        store = desk.transport.store
        assert await store.put("k", b"1", 10)
        assert not await store.put("k", b"2", 10, absent=True)
        clock.move(11)
        assert await store.get(["k"]) == [None]
        assert await store.put("k", b"2", 10, absent=True)

    async def test_a_waiter_is_woken_by_the_fact_from_another_process(self, desk: Desk, engine: Open, clock: SimClock) -> None:
        waiting = asyncio.ensure_future(desk.transport.store.wait("k", None))
        await asyncio.sleep(0.01)
        await (await engine()).store.put("k", b"v", 60)
        async with asyncio.timeout(10):
            assert await waiting == b"v"

        ended = asyncio.ensure_future(desk.transport.store.wait("never", clock.ticks() + 5))
        await asyncio.sleep(0.01)
        clock.move(5.01)
        assert await ended is None

    async def test_look_says_where_a_job_stands(self, desk: Desk, clock: SimClock) -> None:
        inspector, receiver = desk.transport.inspector, await desk.take()
        await desk.transport.publish(MAIL, [message(id="a"), message(id="b", due=clock.time() + 60)])
        assert (await inspector.look("b")).state == "delayed"
        assert (await inspector.look("a")).state == "waiting"
        got = await receive(receiver, 1)
        assert await inspector.look("a") == ("running", 1, None)
        await receiver.settle([(got[0], Acked((Keep("result/a", b"+1", 60),)))])
        assert (await inspector.look("a")).state == "succeeded"
        assert (await inspector.look("nobody")).state == "unknown"

    async def test_lag_counts_what_a_group_has_not_finished(self, desk: Desk) -> None:
        receiver = await desk.read()
        await desk.transport.publish(ORDERS, [message(key=b"%d" % n) for n in range(6)])
        got = await receive(receiver, 6)
        await ack(receiver, got[:2])

        assert await desk.transport.inspector.lag() == [("g", "orders", 4)]
