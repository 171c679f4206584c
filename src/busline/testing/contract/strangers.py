"""What an engine does with jobs of a task that not every worker knows, as in a rolling deploy."""

import asyncio

from busline.core.outcome import Rejected, Retried
from busline.testing.clock import SimClock
from busline.testing.contract.desk import (
    Contract,
    Desk,
    Open,
    ack,
    bodies,
    message,
    nothing,
    receive,
)

OLD, NEW = frozenset({"old"}), frozenset({"new", "old"})


class Strangers(Contract):
    """A job whose task a taker does not know waits for one that does."""

    async def test_it_goes_at_once_to_a_taker_that_knows_it_and_waits(
        self, desk: Desk, engine: Open
    ) -> None:
        second = desk.beside(await engine())
        old, new = await desk.take(tasks=OLD), await second.take(tasks=NEW)
        taking = [asyncio.ensure_future(receive(new, 20)), asyncio.ensure_future(receive(old, 1))]
        for n in range(20):
            await desk.transport.publish(desk.mail, [message(b"%d" % n, task="new")])
            await asyncio.sleep(0.001)
        got = await taking[0]
        assert sorted(int(one.body or b"") for one in got) == list(range(20))
        assert all(one.attempt == 1 for one in got)
        await desk.transport.publish(desk.mail, [message(b"both", task="old")])
        await asyncio.wait(taking[1:], timeout=0.5)
        taking[1].cancel()
        await second.stack.aclose()

    async def test_it_waits_for_one_that_comes_later_and_keeps_its_order(
        self, desk: Desk, engine: Open
    ) -> None:
        jobs = [message(b"%d" % n, task="new" if n % 2 else "old") for n in range(10)]
        await desk.transport.publish(desk.mail, jobs)
        old = await desk.take(tasks=OLD)

        got = await receive(old, 5)
        assert await nothing(old)

        assert bodies(got) == [b"0", b"2", b"4", b"6", b"8"] and desk.host.strangers == {"new": 5}
        assert (await desk.transport.inspector.depth())["mail"][:4] == (0, 0, 5, 5)
        assert await desk.transport.inspector.look(jobs[1].id) == ("waiting", 0, None)
        second = desk.beside(await engine())
        assert bodies(await receive(await second.take(tasks=NEW), 5)) == [
            b"1",
            b"3",
            b"5",
            b"7",
            b"9",
        ]
        await second.stack.aclose()
        assert desk.host.strangers == {"new": 5}

    async def test_it_comes_to_any_when_nobody_has_known_it_for_too_long(
        self, desk: Desk, clock: SimClock
    ) -> None:
        receiver = await desk.take(tasks=OLD, unknown_limit=900.0)
        await desk.transport.publish(desk.mail, [message(b"%d" % n, task="new") for n in range(3)])
        assert await nothing(receiver)
        clock.move(899)
        await desk.transport.publish(desk.mail, [message(b"late", task="new")])
        assert await nothing(receiver)
        taking = asyncio.ensure_future(receive(receiver, 3))
        clock.move(1.1)

        got = await taking
        assert bodies(got) == [b"0", b"1", b"2"]
        await receiver.settle([(one, Rejected("nobody knows it")) for one in got])
        assert await nothing(receiver)
        assert len(await desk.transport.inspector.dead()) == 3
        assert (await desk.transport.inspector.depth())["mail"].retrying == 1

    async def test_it_does_not_die_while_one_lives_that_knows_it(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        second = desk.beside(await engine())
        new = await second.take(tasks=NEW)
        await desk.transport.publish(desk.mail, [message(b"first", task="new")])
        busy = await receive(new, 1)  # and asks for no more
        await desk.transport.publish(desk.mail, [message(b"second", task="new")])
        old = await desk.take(tasks=OLD)
        for _ in range(3):
            assert await nothing(old)
            clock.move(500)
        await ack(new, busy)
        assert bodies(await receive(new, 1)) == [b"second"]
        await second.stack.aclose()

    async def test_one_that_left_knows_nothing_any_more(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        second = desk.beside(await engine())
        await second.take(tasks=NEW)
        await desk.transport.publish(desk.mail, [message(b"j", task="new")])
        old = await desk.take(tasks=OLD)
        assert await nothing(old)
        await second.stack.aclose()
        taking = asyncio.ensure_future(receive(old, 1))
        for _ in range(3):
            await asyncio.sleep(0.05)
            clock.move(1000)

        assert bodies(await taking) == [b"j"]

    async def test_what_comes_back_or_falls_due_is_put_aside_as_well(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        second = desk.beside(await engine())
        new = await second.take(tasks=NEW)
        jobs = [
            message(b"retried", task="new", unique="k", id="x", remember=10.0),
            message(b"due", task="new", due=clock.time() + 1),
        ]
        await desk.transport.publish(desk.mail, jobs)
        await new.settle([((await receive(new, 1))[0], Retried(1, ValueError()))])
        old = await desk.take(tasks=OLD)
        taking = asyncio.ensure_future(receive(old, 1))
        await asyncio.sleep(0.05)
        clock.move(1.1)
        assert await desk.transport.publish(
            desk.mail, [message(unique="k"), message(id="x", remember=10.0)]
        ) == {0: "x", 1: "x"}

        got = await receive(new, 2)

        assert sorted((one.body, one.attempt) for one in got) == [(b"due", 1), (b"retried", 2)]
        taking.cancel()
        await second.stack.aclose()

    async def test_many_of_them_keep_nobody_back(self, desk: Desk) -> None:
        flood = [message(b"%d" % n, task=f"new{n % 7}") for n in range(3000)]
        await desk.transport.publish(desk.mail, [*flood, message(b"good", task="old")])
        receiver = await desk.take(tasks=OLD)

        assert bodies(await receive(receiver, 1)) == [b"good"]

        assert sum(desk.host.strangers.values()) == 3000
        assert (await desk.transport.inspector.depth())["mail"].retrying == 3000
