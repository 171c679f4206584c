"""What an engine with both does besides: records and jobs change in one step."""

import asyncio

from busline.core.counts import Whose
from busline.core.outcome import ACKED, RELEASED, SKIPPED, Acked, Keep, Rejected, Send
from busline.core.served import Served
from busline.testing.clock import SimClock
from busline.testing.contract.desk import Desk, Open, ack, bodies, message, nothing, receive
from busline.testing.contract.queues import Queues
from busline.testing.contract.topics import Topics


class OneEngine(Topics, Queues):
    """Topics and queues in one engine."""

    async def test_what_finished_out_of_order_is_not_repeated(self, desk: Desk) -> None:
        await desk.transport.publish(desk.orders, [message(b"%d" % n, key=b"k") for n in range(4)])
        first = desk.beside(desk.transport)
        receiver = await first.read(order="none")
        got = await receive(receiver, 4)
        await ack(receiver, [got[1], got[3]])
        await first.stack.aclose()

        again = await receive(await desk.read(), 2)

        assert bodies(again) == [b"0", b"2"]
        assert await nothing(await desk.read(group="empty", start="latest"))

    async def test_a_group_is_read_by_one_and_the_next_takes_over(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(2)])
        second = desk.beside(await engine())
        receiver = await desk.read(desk.other)
        standby = await second.read(desk.other)
        await ack(receiver, await receive(receiver, 1))
        assert await nothing(standby)

        await desk.stack.aclose()
        clock.move(1.1)

        assert bodies(await receive(standby, 1)) == [b"1"]
        await second.stack.aclose()

    async def test_a_group_goes_on_where_it_left(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(6)])
        first = desk.beside(desk.transport)
        receiver = await first.read(desk.other, order="none")
        got = await receive(receiver, 4)
        await ack(receiver, [got[0], got[2], got[3]])
        await first.stack.aclose()

        receiver = await desk.read(desk.other, start="latest")

        assert [bodies(await receive(receiver, 1, limit=1)) for _ in range(3)] == [
            [b"1"],
            [b"4"],
            [b"5"],
        ]

    async def test_a_topic_that_another_reads_does_not_hold_up_the_rest(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message(b"0"), message(b"1")])
        first = await desk.read(desk.other)
        await receive(first, 1)
        second = await desk.read(desk.other, desk.orders)
        await desk.transport.publish(desk.orders, [message(b"free")])

        assert bodies(await receive(second, 1)) == [b"free"]
        assert bodies(await receive(first, 1)) == [b"1"]

    async def test_a_waiting_reader_is_woken_by_a_record_and_by_a_send(
        self, desk: Desk, engine: Open
    ) -> None:
        second = desk.beside(await engine())
        reader = await desk.read(desk.other)
        waiting = asyncio.ensure_future(receive(reader, 1))
        await asyncio.sleep(0.01)
        await second.transport.publish(desk.other, [message(b"record")])
        assert bodies(await waiting) == [b"record"]

        await second.transport.publish(desk.mail, [message()])
        taker = await second.take()
        waiting = asyncio.ensure_future(receive(reader, 1))
        await taker.settle(
            [((await receive(taker, 1))[0], Acked((Send(desk.other, message(b"sent")),)))]
        )

        assert bodies(await waiting) == [b"sent"]
        await second.stack.aclose()

    async def test_effects_are_applied_with_the_outcome(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message()])
        reader, taker = await desk.read(desk.other), await desk.take()
        got = (await receive(reader, 1))[0]
        effects = (
            Send(desk.mail, message(b"sent")),
            Keep("k", b"v", 60),
            Send(desk.other, message(b"next")),
        )

        assert (await reader.settle([(got, Acked(effects))])).refused == []

        assert bodies(await receive(taker, 1)) == [b"sent"]
        assert bodies(await receive(reader, 1)) == [b"next"]
        assert await desk.transport.store.get(["k", "no"]) == [b"v", None]

    async def test_what_was_in_hand_when_leaving_is_refused(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message()])
        await desk.transport.publish(desk.other, [message()])
        for again in (False, True):
            first = desk.beside(desk.transport)
            held = [
                (one, (await receive(one, 1))[0])
                for one in (await first.take(), await first.read(desk.other))
            ]
            await first.stack.aclose()
            if again:
                await receive(await desk.take(), 1)
                await receive(await desk.read(desk.other), 1)
            for receiver, delivery in held:
                assert (await receiver.settle([(delivery, desk.sending(b"late"))])).refused == [
                    delivery
                ]

        assert "post" not in await desk.transport.inspector.depth()

    async def test_a_send_that_can_never_be_done_kills_its_own_job_alone(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [])
        await desk.transport.publish(desk.mail, [message(b"%d" % n) for n in range(3)])
        receiver = await desk.take()
        a, b, c = await receive(receiver, 3)

        assert (
            await receiver.settle(
                [(a, desk.sending(b"sent")), (b, desk.impossible()), (c, RELEASED)]
            )
        ).refused == []

        assert [(one.body, one.error_type) for one in await desk.transport.inspector.dead()] == [
            (b"1", "Invalid")
        ]
        assert bodies(await receive(receiver, 1)) == [b"2"]
        assert bodies(await receive(await desk.take(desk.post), 1)) == [b"sent"]
        assert (await desk.transport.inspector.depth())["post"].waiting == 0

    async def test_a_send_that_can_never_be_done_kills_its_own_record_alone(
        self, desk: Desk
    ) -> None:
        await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(3)])
        receiver = await desk.read(desk.other)
        a, b, c = await receive(receiver, 3)

        outcomes = (a, ACKED), (b, desk.impossible()), (c, desk.sending(b"sent"))
        settlement = await receiver.settle(outcomes)
        assert settlement.refused == []
        assert [one for one, _ in settlement.rejected] == [b]

        assert [(one.body, one.position) for one in await desk.transport.inspector.dead()] == [
            (b"1", b.position)
        ]
        assert bodies(await receive(await desk.take(desk.post), 1)) == [b"sent"]
        assert await desk.behind("g", desk.other, 0)

    async def test_counts_hold_retries_in_the_lane_and_all_processes(
        self, desk: Desk, engine: Open
    ) -> None:
        await desk.transport.publish(desk.other, [message(), message(), message()])
        receiver = await desk.read(desk.other)
        first, second, third = await receive(receiver, 3)
        third_run = first.again()
        third_run.attempt = 3
        for one in (third_run, second, third):
            one.handler = "bill"

        assert (
            await receiver.settle([(third_run, ACKED), (second, SKIPPED), (third, RELEASED)])
        ).refused == []

        counts = (await (await engine()).inspector.counts())[Whose("~g", "bill")]
        assert (counts.handled, counts.retried, counts.skipped, counts.dead, counts.refused) == (
            1,
            2,
            1,
            0,
            0,
        )

    async def test_a_dead_record_goes_back_to_its_group_alone(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message(b"bad", key=b"k")])
        reader, others, inspector = (
            await desk.read(desk.other),
            await desk.read(desk.other, group="others"),
            desk.transport.inspector,
        )
        got = (await receive(reader, 1))[0]
        got.handler = "bill"
        await receive(others, 1)
        await reader.settle([(got, Rejected("no"))])
        letter = (await inspector.dead(handlers=["bill"]))[0]
        assert (letter.address, letter.position, letter.handler) == ("other", got.position, "bill")

        await inspector.redrive([letter.id])
        redriven = await desk.take(desk.redriven("g"))
        again = (await receive(redriven, 1))[0]

        assert (again.address, again.position, again.body, again.key, again.message.task) == (
            "other",
            got.position,
            b"bad",
            b"k",
            "bill",
        )
        again.handler = "bill"
        await redriven.settle([(again, Rejected("still"))])
        letter = (await inspector.dead())[0]
        assert (letter.address, letter.position, letter.reason) == ("other", got.position, "still")
        assert letter.served == Served("other", "g") and [
            one.id for one in await inspector.dead(served=[letter.served])
        ] == [letter.id]
        assert (await inspector.redrive([letter.id])).again == 1

    async def test_a_record_that_died_in_two_groups_goes_back_to_each(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message(b"x", id="r")])
        inspector, redriven = desk.transport.inspector, list[str]()
        for group in ("a", "b"):
            receiver = await desk.read(desk.other, group=group)
            got = (await receive(receiver, 1))[0]
            got.handler = f"handler {group}"
            await receiver.settle([(got, Rejected("no"))])
            redriven += [one.id for one in await inspector.dead()]
            assert (await inspector.redrive(redriven[-1:])).again == 1

        for group in ("a", "b"):
            again = (await receive(await desk.take(desk.redriven(group)), 1))[0]
            assert (again.body, again.message.task) == (b"x", f"handler {group}")

    async def test_a_letter_of_each_group_is_kept_under_its_own_id(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message(id="r")])
        for group in ("a", "b"):
            receiver = await desk.read(desk.other, group=group)
            await receiver.settle([((await receive(receiver, 1))[0], Rejected(group))])

        letters = await desk.transport.inspector.dead()

        assert [one.reason for one in letters] == ["a", "b"]
        assert len({one.id for one in letters}) == 2
        assert await desk.transport.inspector.redrive([one.id for one in letters]) == (2, ())

    async def test_a_redriven_record_is_a_job_with_what_it_came_with(self, desk: Desk) -> None:
        headers = (("h", b"\xff"), ("h", None))
        await desk.transport.publish(desk.other, [message(b"x", key=b"k", at=5.0, headers=headers)])
        reader = await desk.read(desk.other)
        got = (await receive(reader, 1))[0]
        await reader.settle([(got, Rejected("no"))])
        await desk.transport.inspector.redrive([got.id])

        again = (await receive(await desk.take(desk.redriven("g")), 1))[0]

        assert (again.message.at, again.message.headers, again.message.origin) == (
            5.0,
            headers,
            got.position,
        )
        assert (again.attempt, again.lane, again.in_lane) == (1, None, False)
        assert await desk.behind("g", desk.other, 0)

    async def test_lag_leaves_out_what_finished_out_of_order(self, desk: Desk) -> None:
        await desk.transport.publish(desk.other, [message() for _ in range(5)])
        receiver, _ = (
            await desk.read(desk.other, order="none"),
            await desk.read(desk.other, group="new", start="latest"),
        )
        got = await receive(receiver, 5)
        await ack(receiver, [got[1], got[3]])
        await receiver.settle([(got[2], Rejected("no"))])

        lag = {(one.group, one.topic): one.behind for one in await desk.transport.inspector.lag()}

        assert lag == {("g", "other"): 2, ("new", "other"): 0}

    async def test_a_hand_out_has_a_limit_in_bytes(self, desk: Desk) -> None:
        sizes = [400, 400, 400, 2000, 0, 300, 300, 300, 900]
        await desk.transport.publish(desk.mail, [message(b"x" * size) for size in sizes])
        await desk.transport.publish(desk.other, [message(b"x" * size) for size in sizes])
        await desk.transport.publish(
            desk.orders, [message(b"x" * 600, key=b"%d" % n) for n in range(12)]
        )

        for receiver in (
            await desk.take(batch_bytes=1000),
            await desk.read(desk.other, batch_bytes=1000),
        ):
            parts = [await receiver.receive(100) for _ in range(5)]
            assert [[len(one.body or b"") for one in part] for part in parts] == [
                [400, 400],
                [400],
                [2000],
                [0, 300, 300, 300],
                [900],
            ]
        many = await desk.read(desk.orders, batch_bytes=1000)
        assert [len(await many.receive(100)) for _ in range(12)] == [1] * 12
