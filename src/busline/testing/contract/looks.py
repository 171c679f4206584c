"""What an engine shows of its queues to people, and what it changes for them."""

from busline.core.outcome import ACKED, Rejected, Retried
from busline.testing.clock import SimClock
from busline.testing.contract.desk import (
    Contract,
    Desk,
    ack,
    bodies,
    failed,
    is_told,
    message,
    receive,
)

OLD = frozenset({"old"})


class Looks(Contract):
    """Whoever looks takes nothing; whoever clears a queue leaves what is in hand."""

    async def _filled(self, desk: Desk, clock: SimClock) -> None:
        """In the mail queue stand one in hand, one that failed, three that wait, one delayed and
        one aside; another in the post."""
        transport, clock.now = desk.transport, clock.now + 1.0
        receiver = await desk.take(tasks=OLD)
        await transport.publish(
            desk.mail, [message(b"in hand", id="h", task="old"), message(b"failed", task="old")]
        )
        _, again = await receive(receiver, 2)
        await receiver.settle([(again, Retried(50.0, ValueError("why")))])
        await transport.publish(desk.mail, [message(b"aside", task="new")])
        await transport.publish(desk.post, [message(b"post", id="p", unique="p", remember=9.0)])
        await desk.stack.aclose()
        self.receiver = await desk.take(tasks=OLD)
        (self.held,) = await receive(self.receiver, 1, limit=1)
        later = message(
            b"delayed", id="d", due=clock.time() + 100, unique="u", task="old", remember=9.0
        )
        await transport.publish(
            desk.mail,
            [*(message(b"%d" % n, id=f"n{n}", task="old", remember=9.0) for n in range(3)), later],
        )

    async def test_a_look_at_a_queue_shows_its_jobs_in_order_and_takes_none(
        self, desk: Desk, clock: SimClock
    ) -> None:
        headers = (("h", b"\xff"), ("h", None))
        await desk.transport.publish(
            desk.mail,
            [message(b"%d" % n, task="send", headers=headers, key=b"k") for n in range(4)],
        )
        await desk.transport.publish(
            desk.mail, [message(b"late", task="send", due=clock.time() + n) for n in (90, 80)]
        )
        inspector = desk.transport.inspector

        seen = await inspector.peek(desk.mail, 3)
        assert bodies(seen) == [b"0", b"1", b"2"] and {one.position for one in seen} == {None}
        assert (seen[0].message.task, seen[0].message.headers, seen[0].key, seen[0].attempt) == (
            "send",
            headers,
            b"k",
            1,
        )
        whole = await inspector.peek(desk.mail, 10)
        assert bodies(whole)[3:] == [b"3", b"late", b"late"] and [
            one.message.due for one in whole[4:]
        ] == [clock.time() + 80, clock.time() + 90]
        assert await inspector.peek(desk.post, 10) == []

        assert len(await receive(await desk.take(), 4)) == 4
        assert bodies(await inspector.peek(desk.mail, 10)) == [b"late", b"late"]

    async def test_a_queue_is_cleared_but_for_what_is_in_hand(
        self, desk: Desk, clock: SimClock
    ) -> None:
        await self._filled(desk, clock)
        inspector = desk.transport.inspector
        found = bodies(await inspector.peek(desk.mail, 10))
        held = self.held.body

        assert len(found) == 6 and held not in found
        assert await inspector.clear(desk.mail.name) == 6
        assert (
            await inspector.peek(desk.mail, 10) == [] and await inspector.clear(desk.mail.name) == 0
        )
        depth = (await inspector.depth()).get(desk.mail.name)
        assert depth is not None and (
            depth.waiting,
            depth.delayed,
            depth.retrying,
            depth.running,
        ) == (0, 0, 0, 1)
        assert bodies(await inspector.peek(desk.post, 10)) == [b"post"]
        assert await ack(self.receiver, [self.held]) == []
        again = [
            message(id="n0", remember=9.0),
            message(id="x", unique="u"),
            message(id="d", remember=9.0),
        ]
        assert await desk.transport.publish(desk.mail, again) == {}

    async def test_thousands_are_cleared(self, desk: Desk) -> None:
        await desk.transport.publish(desk.mail, [message() for _ in range(2_500)])

        assert await desk.transport.inspector.clear(desk.mail.name) == 2_500

    async def test_a_dead_job_gets_another_body_and_keeps_the_rest(self, desk: Desk) -> None:
        await desk.transport.publish(
            desk.mail, [message(b"bad", id="j", task="send", headers=(("h", None),), key=b"k")]
        )
        receiver, inspector = await desk.take(), desk.transport.inspector
        (got,) = await receive(receiver, 1)
        got.handler = "send"
        await receiver.settle([(got, Rejected("no", failed()))])

        assert await inspector.mend("j", b"good") and not await inspector.mend("nobody", b"good")

        (letter,) = await inspector.dead()
        assert (letter.body, letter.raw_headers, letter.key, letter.reason, letter.attempts) == (
            b"good",
            (("h", None),),
            b"k",
            "no",
            1,
        )
        assert is_told(letter) and await inspector.redrive(["j"]) == (1, ())
        (again,) = await receive(receiver, 1)
        assert (again.body, again.key, again.message.task) == (b"good", b"k", "send")
        assert (await receiver.settle([(again, ACKED)])).refused == []
