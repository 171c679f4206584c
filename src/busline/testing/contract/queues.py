"""What an engine with queues does: jobs, their settling, their dead letters, facts."""

import asyncio

from busline.core.counts import Whose
from busline.core.ids import new_id
from busline.core.message import Options
from busline.core.outcome import ACKED, RELEASED, Acked, Keep, Rejected, Retried, Send
from busline.core.served import Served
from busline.testing.clock import SimClock
from busline.testing.contract.desk import (
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
from busline.testing.contract.looks import Looks
from busline.testing.contract.strangers import Strangers


class Queues(Looks, Strangers):
    """Jobs go to one taker each, until they are final."""

    async def test_a_job_goes_to_one_taker_first_come_first_served(
        self, desk: Desk, engine: Open
    ) -> None:
        second = desk.beside(await engine())
        one, other = await desk.take(), await second.take()
        await desk.transport.publish(desk.mail, [message(b"%d" % n) for n in range(4)])

        first, rest = await receive(one, 2), await receive(other, 2)

        assert bodies(first) + bodies(rest) == [b"0", b"1", b"2", b"3"]
        await second.stack.aclose()

    async def test_a_waiting_receiver_is_woken_by_another_process(
        self, desk: Desk, engine: Open
    ) -> None:
        receiver = await desk.take()
        waiting = asyncio.ensure_future(receive(receiver, 1))
        await asyncio.sleep(0.01)

        await (await engine()).publish(desk.mail, [message(b"now")])

        assert bodies(await waiting) == [b"now"]

    async def test_a_delayed_job_starts_when_it_is_due(self, desk: Desk, clock: SimClock) -> None:
        receiver = await desk.take()
        await desk.transport.publish(desk.mail, [message(b"later", due=clock.time() + 60)])
        assert await nothing(receiver)

        waiting = asyncio.ensure_future(receive(receiver, 1))
        await asyncio.sleep(0.01)
        clock.move(60.01)

        assert bodies(await waiting) == [b"later"]

    async def test_a_retried_job_comes_again_counted_or_not(
        self, desk: Desk, clock: SimClock
    ) -> None:
        await desk.transport.publish(desk.mail, [message(id="j")])
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
        await desk.transport.publish(desk.mail, [message()])
        receiver = await desk.take()
        await receiver.settle([((await receive(receiver, 1))[0], RELEASED)])

        assert (await receive(receiver, 1))[0].attempt == 1

    async def test_leaving_gives_back_what_is_in_hand(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(b"%d" % n) for n in range(3)])
        first = desk.beside(desk.transport)
        await receive(await first.take(), 2)
        await first.stack.aclose()

        assert sorted(bodies(await receive(await desk.take(), 3)), key=str) == [b"0", b"1", b"2"]

    async def test_a_cancelled_receive_loses_nothing(self, desk: Desk) -> None:
        receiver = await desk.take()
        for n in range(30):
            waiting = asyncio.ensure_future(receiver.receive(1))
            await asyncio.sleep(0)
            await desk.transport.publish(desk.mail, [message(b"%d" % n)])
            waiting.cancel()
            found = (await asyncio.gather(waiting, return_exceptions=True))[0]
            got = found if isinstance(found, list | tuple) else await receive(receiver, 1)
            assert bodies(got) == [b"%d" % n]
            await ack(receiver, got)

    async def test_an_id_that_is_remembered_gives_the_first_job(
        self, desk: Desk, clock: SimClock
    ) -> None:
        publish, receiver = desk.transport.publish, await desk.take()
        first = message(id="x", remember=100.0)
        assert await publish(desk.mail, [first]) == {}
        assert await publish(desk.mail, [message(), message(id="x", remember=100.0)]) == {1: "x"}

        await ack(receiver, await receive(receiver, 2))
        assert await publish(desk.mail, [message(id="x", remember=100.0)]) == {0: "x"}
        clock.move(101)
        assert await publish(desk.mail, [message(id="x", remember=100.0)]) == {}

    async def test_a_unique_key_is_a_lock_until_the_job_is_final(
        self, desk: Desk, clock: SimClock
    ) -> None:
        publish, receiver = desk.transport.publish, await desk.take()
        await publish(desk.mail, [message(id="a", unique="k")])
        got = await receive(receiver, 1)
        assert await publish(desk.mail, [message(unique="k")]) == {0: "a"}
        await receiver.settle([(got[0], Retried(1, ValueError()))])
        assert await publish(desk.mail, [message(unique="k")]) == {0: "a"}
        clock.move(1.1)

        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])

        assert await publish(desk.mail, [message(unique="k")]) == {}

    async def test_a_job_carries_what_its_sender_gave_it(self, desk: Desk, clock: SimClock) -> None:
        options = Options(2.5, {"attempts": 3})
        sent = message(
            b"b",
            id="j",
            key=b"\xff",
            at=3.0,
            task="send",
            due=clock.time() - 1,
            unique="u",
            options=options,
        )
        await desk.transport.publish(desk.mail, [sent])

        got = (await receive(await desk.take(), 1))[0].message

        assert (got.id, got.body, got.key, got.at, got.task, got.due) == (
            "j",
            b"b",
            b"\xff",
            3.0,
            "send",
            sent.due,
        )
        assert (got.unique, got.origin, got.options) == ("u", None, options)

    async def test_of_the_same_id_or_lock_in_one_publish_the_first_counts(self, desk: Desk) -> None:
        jobs = [
            message(b"1", id="a"),
            message(b"2", id="a"),
            message(b"3", id="b", unique="u"),
            message(b"4", id="c", unique="u"),
        ]

        assert await desk.transport.publish(desk.mail, jobs) == {1: "a", 3: "b"}
        assert bodies(await receive(await desk.take(), 2)) == [b"1", b"3"]

    async def test_a_remembered_id_is_known_in_every_queue_and_of_the_dead(
        self, desk: Desk
    ) -> None:
        publish, receiver = desk.transport.publish, await desk.take()
        await publish(
            desk.mail, [message(id="done", remember=100.0), message(id="dead", remember=100.0)]
        )
        done, dead = await receive(receiver, 2)
        await receiver.settle([(done, ACKED), (dead, Rejected("no"))])

        assert await publish(desk.mail, [message(id="dead", remember=1.0)]) == {0: "dead"}
        assert await publish(desk.post, [message(id="done", remember=1.0)]) == {0: "done"}

    async def test_a_lock_holds_across_queues_and_for_sends(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(id="a", unique="k"), message(id="b")])
        receiver, taker = await desk.take(), await desk.take(desk.post)
        a, b = await receive(receiver, 2)

        assert await desk.transport.publish(desk.post, [message(id="c", unique="k")]) == {0: "a"}
        await receiver.settle([(b, Acked((Send(desk.post, message(id="d", unique="k")),)))])
        await receiver.settle([(a, Acked((Send(desk.post, message(id="e", unique="k")),)))])
        assert [one.id for one in await receive(taker, 1)] == ["e"]

    async def test_released_jobs_come_again_first_and_in_their_order(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(b"%d" % n) for n in range(5)])
        receiver = await desk.take()
        await receiver.settle([(one, RELEASED) for one in await receive(receiver, 3)])

        assert bodies(await receive(receiver, 5)) == [b"0", b"1", b"2", b"3", b"4"]

    async def test_a_full_queue_starves_no_other_of_the_same_taker(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message() for _ in range(50)])
        await desk.transport.publish(desk.post, [message()])
        receiver, seen = await desk.take(desk.mail, desk.post), set[str]()
        for _ in range(4):
            got = await receiver.receive(3)
            seen.update(one.address for one in got)
            await ack(receiver, got)

        assert seen == {"mail", "post"}

    async def test_delayed_jobs_start_in_the_order_of_their_times(
        self, desk: Desk, clock: SimClock
    ) -> None:
        now, receiver = clock.time(), await desk.take()
        await desk.transport.publish(
            desk.mail, [message(b"%d" % after, due=now + after) for after in (3, 1, 2)]
        )
        found: list[bytes | None] = []
        for _ in range(3):
            waiting = asyncio.ensure_future(receive(receiver, 1))
            await asyncio.sleep(0.01)
            clock.move(1.01)
            found += bodies(await waiting)

        assert found == [b"1", b"2", b"3"]

    async def test_depth_tells_the_senders_delay_from_a_retry(
        self, desk: Desk, clock: SimClock
    ) -> None:
        await desk.transport.publish(
            desk.mail, [message(), message(), message(), message(due=clock.time() + 60)]
        )
        receiver = await desk.take()
        got = await receive(receiver, 2)
        await receiver.settle([(got[0], Retried(60, ValueError()))])

        depth = (await desk.transport.inspector.depth())["mail"]

        assert depth[:4] == (1, 1, 1, 1)

    async def test_leaving_does_not_count_an_attempt(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message()])
        first = desk.beside(desk.transport)
        receiver = await first.take()
        await receiver.settle([((await receive(receiver, 1))[0], Retried(0, ValueError()))])
        assert (await receive(receiver, 1))[0].attempt == 2
        await first.stack.aclose()

        assert (await receive(await desk.take(), 1))[0].attempt == 2

    async def test_settling_again_does_nothing(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message()])
        receiver = await desk.take()
        got = (await receive(receiver, 1))[0]
        effects = Acked((Send(desk.mail, message(b"sent")),))
        await receiver.settle([(got, effects)])

        assert (await receiver.settle([(got, effects)])).refused == [got]

        await ack(receiver, await receive(receiver, 1))
        assert await nothing(receiver)

    async def test_what_another_receiver_has_in_hand_is_refused(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(b"0"), message(b"1")])
        one, other = await desk.take(), await desk.take()
        mine, theirs = (await receive(one, 1))[0], (await receive(other, 1))[0]

        assert (
            await one.settle([(theirs, desk.sending(b"stolen")), (mine, desk.sending(b"sent"))])
        ).refused == [theirs]
        assert (await one.settle([])).refused == []

        assert bodies(await receive(await desk.take(desk.post), 1)) == [b"sent"]
        assert await ack(other, [theirs]) == []

    async def test_sends_leave_in_their_order_with_a_rejection_too(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(), message()])
        receiver = await desk.take()
        a, b = await receive(receiver, 2)
        await receiver.settle(
            [
                (a, desk.sending(b"0", b"1")),
                (b, Rejected("no", None, (*desk.sending(b"2").effects, Keep("k", b"v", 9)))),
            ]
        )

        assert bodies(await receive(await desk.take(desk.post), 3)) == [b"0", b"1", b"2"]
        assert await desk.transport.store.get(["k"]) == [b"v"]

    async def test_depth_tells_since_when_the_first_waits(
        self, desk: Desk, clock: SimClock
    ) -> None:
        begun = clock.time()
        sent = [message(at=begun, due=begun + 60), message(at=begun + 1), message(at=begun + 2)]
        await desk.transport.publish(desk.mail, sent)

        async def oldest() -> float | None:
            found = (await desk.transport.inspector.depth())["mail"].oldest
            return None if found is None else round(found - begun, 3)

        assert await oldest() == 1
        receiver = await desk.take()
        await receive(receiver, 2)
        assert await oldest() is None
        clock.move(61)
        (due,) = await receive(receiver, 1)
        await receiver.settle([(due, RELEASED)])
        assert await oldest() == 60

    async def test_any_mix_settles_each_in_its_way(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(b"%d" % n) for n in range(4)])
        receiver = await desk.take()
        a, b, c, d = await receive(receiver, 4)
        await receiver.settle(
            [(a, ACKED), (b, Rejected("bad")), (c, Retried(60, ValueError())), (d, RELEASED)]
        )

        depth = (await desk.transport.inspector.depth())["mail"]

        assert (depth.waiting, depth.retrying, depth.running) == (1, 1, 0)
        assert bodies(await receive(receiver, 1)) == [b"3"]
        assert [one.body for one in await desk.transport.inspector.dead()] == [b"1"]

    async def test_counts_say_what_became_of_each_handler(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message() for _ in range(4)])
        receiver = await desk.take()
        got = await receive(receiver, 4)
        for one in got:
            one.handler = "send"
        await receiver.settle(
            [
                (got[0], ACKED),
                (got[1], Rejected("")),
                (got[2], Retried(9, ValueError())),
                (got[3], Acked(skipped=True)),
            ]
        )
        await receiver.settle([(got[0], ACKED)])

        counts = (await desk.transport.inspector.counts())[Whose("mail", "send")]

        assert (counts.handled, counts.dead, counts.retried, counts.skipped, counts.refused) == (
            1,
            1,
            1,
            1,
            1,
        )

    async def test_a_dead_job_is_kept_whole_and_runs_again_when_redriven(self, desk: Desk) -> None:
        headers = (("h", b"\xff"), ("h", None))
        await desk.transport.publish(
            desk.mail, [message(b"body", id="j", task="send", headers=headers)]
        )
        receiver, inspector = await desk.take(), desk.transport.inspector
        got = (await receive(receiver, 1))[0]
        got.handler = "send"
        await receiver.settle([(got, Rejected("no", failed()))])

        letter = (await inspector.dead())[0]
        assert (letter.id, letter.body, letter.raw_headers, letter.reason) == (
            "j",
            b"body",
            headers,
            "no",
        )
        assert (letter.error_type, letter.error, letter.attempts, letter.position) == (
            "ValueError",
            "why",
            1,
            None,
        )
        assert is_told(letter)
        assert (await inspector.look("j")).state == "failed"

        assert await inspector.redrive(["j", "nobody"]) == (1, ())
        again = (await receive(receiver, 1))[0]
        assert (again.id, again.message.task, again.attempt, again.message.headers) == (
            "j",
            "send",
            1,
            headers,
        )
        assert await inspector.dead() == []

    async def test_dead_letters_are_paged_filtered_and_purged(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(id=f"j{n}") for n in range(5)])
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

    async def test_dead_jobs_are_told_apart_by_their_queue(self, desk: Desk) -> None:
        receiver, inspector = await desk.take(desk.mail, desk.post), desk.transport.inspector
        for queue, ids in ((desk.mail, "ab"), (desk.post, "c")):
            await desk.transport.publish(queue, [message(id=id) for id in ids])
        got = await receive(receiver, 3)
        for one in got:
            one.handler = "send"
        await receiver.settle([(one, Rejected("no")) for one in got])

        mail, post = Served("mail"), Served("post")
        assert sorted([one.id for one in await inspector.dead(served=[mail])]) == ["a", "b"]
        assert [one.id for one in await inspector.dead(served={post, Served("mail", "g")})] == ["c"]
        assert await inspector.dead(served=[mail], handlers=["other"]) == []
        assert await inspector.dead(served=[mail], id="c") == [] == await inspector.dead(served=[])
        assert len(await inspector.dead(served=[mail, post], limit=2)) == 2
        assert sorted(
            (one.served, one.handler, one.letters) for one in await inspector.standing()
        ) == [(mail, "send", 2), (post, "send", 1)]
        assert [one[:3] for one in await inspector.standing([post])] == [(post, "send", 1)]
        assert {whose: one.dead for whose, one in (await inspector.counts()).items()} == {
            ("mail", "send"): 2,
            ("post", "send"): 1,
        }

    async def test_a_dead_job_goes_to_another_handler_when_told(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(id="j", task="old")])
        receiver, inspector = await desk.take(), desk.transport.inspector
        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])

        assert await inspector.redrive(["j"], "new") == (1, ())

        again = (await receive(receiver, 1))[0]
        assert (again.id, again.message.task) == ("j", "new")

    async def test_a_redrive_that_meets_a_living_unique_job_is_refused(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(id="a", unique="k")])
        receiver = await desk.take()
        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])
        await desk.transport.publish(desk.mail, [message(id="b", unique="k")])

        done = await desk.transport.inspector.redrive(["a"])

        assert done.again == 0 and "'a'" in done.refused[0]
        assert len(await desk.transport.inspector.dead()) == 1

    async def test_a_letter_comes_back_beside_a_living_job_of_its_id(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(b"old", id="j")])
        receiver, inspector = await desk.take(), desk.transport.inspector
        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])
        await desk.transport.publish(desk.mail, [message(b"new", id="j")])

        assert await inspector.redrive(["j"]) == (1, ())

        assert await inspector.dead() == []
        assert set(bodies(await receive(receiver, 2))) == {b"old", b"new"}

    async def test_a_redrive_forgets_the_failure(self, desk: Desk) -> None:
        await desk.transport.publish(
            desk.mail, [message(id="j", remember=100.0, unique="k", due=1.0)]
        )
        receiver, inspector = await desk.take(), desk.transport.inspector
        await receiver.settle(
            [((await receive(receiver, 1))[0], Rejected("no", None, (Keep("result/j", b"-", 60),)))]
        )
        assert await desk.transport.store.get(["result/j"]) == [b"-"]

        await inspector.redrive(["j"])

        assert await desk.transport.store.get(["result/j"]) == [None]
        assert (await inspector.depth())["mail"].waiting == 1
        assert await desk.transport.publish(desk.mail, [message(unique="k")]) == {0: "j"}
        await ack(receiver, await receive(receiver, 1))
        assert await desk.transport.publish(desk.mail, [message(id="j", remember=100.0)]) == {
            0: "j"
        }

    async def test_of_two_letters_with_one_lock_one_comes_back(self, desk: Desk) -> None:
        receiver, inspector = await desk.take(), desk.transport.inspector
        for id in ("a", "b"):
            await desk.transport.publish(desk.mail, [message(id=id, unique="k")])
            await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])

        done = await inspector.redrive(["a", "a", "b"])

        assert done.again == 1 and len(done.refused) == 1
        assert [one.id for one in await inspector.dead()] == ["b"]

    async def test_a_letter_that_is_purged_is_forgotten(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(id="j")])
        receiver, inspector = await desk.take(), desk.transport.inspector
        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no"))])

        assert await inspector.purge(["j", "j"]) == 1
        assert await inspector.purge(["j"]) == 0
        assert await inspector.redrive(["j"]) == (0, ())
        assert (await inspector.look("j")).state == "unknown"

    async def test_a_letter_that_dies_again_is_the_youngest(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message(id=id) for id in "abc"])
        receiver, inspector = await desk.take(), desk.transport.inspector
        await receiver.settle([(one, Rejected("no")) for one in await receive(receiver, 3)])
        await inspector.redrive(["a"])
        await receiver.settle([((await receive(receiver, 1))[0], Rejected("again"))])

        assert [one.id for one in await inspector.dead()] == ["b", "c", "a"]
        assert [one.id for one in await inspector.dead(after="c")] == ["a"]

    async def test_facts_live_for_their_time(self, desk: Desk, clock: SimClock) -> None:
        store = desk.transport.store
        assert await store.put("k", b"1", 10)
        assert not await store.put("k", b"2", 10, absent=True)
        clock.move(11)
        assert await store.get(["k"]) == [None]
        assert await store.put("k", b"2", 10, absent=True)

    async def test_a_waiter_is_woken_by_the_fact_from_another_process(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
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
        first, later = new_id(), new_id()
        await desk.transport.publish(
            desk.mail, [message(id=first), message(id=later, due=clock.time() + 60)]
        )
        assert (await inspector.look(later)).state == "delayed"
        assert (await inspector.look(first)).state == "waiting"
        got = await receive(receiver, 1)
        assert await inspector.look(first) == ("running", 1, None)
        await receiver.settle([(got[0], Acked((Keep(f"result/{first}", b"+1", 60),)))])
        assert (await inspector.look(first)).state == "succeeded"
        assert (await inspector.look("nobody")).state == "unknown"

    async def test_look_counts_the_runs_begun(self, desk: Desk, clock: SimClock) -> None:
        look, receiver = desk.transport.inspector.look, await desk.take()
        await desk.transport.publish(desk.mail, [message(id="j")])
        await receiver.settle([((await receive(receiver, 1))[0], Retried(5, ValueError()))])
        assert await look("j") == ("delayed", 1, None)
        clock.move(5.01)
        got = (await receive(receiver, 1))[0]
        assert await look("j") == ("running", 2, None)

        await receiver.settle([(got, Rejected("no"))])

        found = await look("j")
        assert (found.state, found.attempt) == ("failed", 2)
        assert found.dead is not None and found.dead.attempts == 2

    async def test_a_fact_is_replaced_and_found_among_many(self, desk: Desk, engine: Open) -> None:
        store = desk.transport.store
        assert (
            await store.put("a", b"1", 10)
            and await store.put("a", b"2", 10)
            and await store.put("b", b"", 10)
        )

        assert await (await engine()).store.get(["b", "no", "a"]) == [b"", None, b"2"]

    async def test_a_waiter_gets_what_is_there_or_a_settle_keeps(
        self, desk: Desk, clock: SimClock
    ) -> None:
        store, receiver = desk.transport.store, await desk.take()
        await desk.transport.publish(desk.mail, [message()])
        async with asyncio.timeout(10):
            assert await store.wait("k", clock.ticks()) is None
            waiting = [asyncio.ensure_future(store.wait("k", None)) for _ in range(3)]
            await asyncio.sleep(0.01)
            waiting.pop().cancel()
            await receiver.settle(
                [((await receive(receiver, 1))[0], Acked((Keep("k", b"v", 60),)))]
            )
            assert await asyncio.gather(*waiting) == [b"v", b"v"]
            assert await store.wait("k", clock.ticks()) == b"v"

    async def test_headers_and_bodies_of_jobs_travel_byte_for_byte(self, desk: Desk) -> None:
        headers = (
            ("ce_id", b"1"),
            ("trash", b"\xc3\x28"),
            ("ce_id", b"2"),
            ("none", None),
            ("é", b""),
        )
        await desk.transport.publish(
            desk.mail, [message(b"", headers=headers), message(b"\x00\xff")]
        )

        empty, other = await receive(await desk.take(), 2)

        assert (empty.body, empty.message.headers, other.body) == (b"", headers, b"\x00\xff")

    async def test_the_effects_of_a_job_are_applied_with_its_outcome(
        self, desk: Desk, clock: SimClock
    ) -> None:
        await desk.transport.publish(desk.mail, [message()])
        receiver, taker = await desk.take(), await desk.take(desk.post)
        effects = (
            *desk.sending(b"sent").effects,
            Send(desk.post, message(b"later", due=clock.time() + 5)),
            Keep("k", b"v", 60),
        )

        assert (
            await receiver.settle([((await receive(receiver, 1))[0], Acked(effects))])
        ).refused == []

        assert bodies(await receive(taker, 1)) == [b"sent"]
        assert await desk.transport.store.get(["k", "no"]) == [b"v", None]
        assert (await desk.transport.inspector.depth())["post"].delayed == 1
