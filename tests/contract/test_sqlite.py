"""The SQLite engine passes the contract, and what only a shared file can show."""

import asyncio
import fcntl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from busline.core.outcome import ACKED, Acked, Send
from busline.core.ports import Transport
from busline.testing.clock import SimClock
from busline.testing.contract import MAIL, OTHER, Desk, OneEngine, Open, bodies, message, receive
from busline.transports.sqlite import SqliteTransport


@pytest.fixture
async def engine(clock: SimClock, tmp_path: Path) -> AsyncGenerator[Open]:
    async with AsyncExitStack() as stack:

        async def engine() -> Transport:
            return await stack.enter_async_context(
                SqliteTransport(tmp_path / "bus.db", clock=clock)
            )

        yield engine


async def take_for_dead(desk: Desk, engine: Open) -> Transport:
    """Another process finds this one dead: its beat is older than the lease."""
    other = await engine()
    assert isinstance(other, SqliteTransport)
    other.neighbours.lease = -1.0
    await other.neighbours.look()
    other.neighbours.lease = 20.0
    return other


async def die(desk: Desk, engine: Open) -> None:
    """As if the desk's process had been killed: the kernel gives its lock back. Another finds it
    dead."""
    assert isinstance(desk.transport, SqliteTransport)
    fcntl.flock(desk.transport.process._lock, fcntl.LOCK_UN)
    other = await engine()
    assert isinstance(other, SqliteTransport)
    await other.neighbours.look()


class TestSqlite(OneEngine):
    async def test_a_process_taken_for_dead_settles_nothing_of_a_job(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        await desk.transport.publish(MAIL, [message(b"x")])
        receiver = await desk.take()
        got = await receive(receiver, 1)
        second = Desk(await take_for_dead(desk, engine), clock)
        theirs = await receive(await second.take(), 1)

        late, _ = await receiver.settle([(got[0], Acked((Send(MAIL, message(b"effect")),)))])

        assert late == got and bodies(theirs) == [b"x"]
        depth = (await desk.transport.inspector.depth())["mail"]
        assert (depth.running, depth.waiting) == (1, 0)
        await second.stack.aclose()

    async def test_a_process_taken_for_dead_acknowledges_nothing(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        await desk.transport.publish(MAIL, [message(b"x"), message(b"y")])
        receiver = await desk.take()
        got = await receive(receiver, 2)
        second = Desk(await take_for_dead(desk, engine), clock)
        await receive(await second.take(), 2)

        assert (await receiver.settle([(one, ACKED) for one in got])).refused == got

        assert (await desk.transport.inspector.depth())["mail"].running == 2
        await second.stack.aclose()

    async def test_a_process_taken_for_dead_settles_nothing_of_a_record(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        await desk.transport.publish(OTHER, [message(b"x")])
        receiver = await desk.read(OTHER)
        got = await receive(receiver, 1)
        second = Desk(await take_for_dead(desk, engine), clock)
        theirs = await receive(await second.read(OTHER), 1)

        late, _ = await receiver.settle([(got[0], Acked((Send(MAIL, message(b"effect")),)))])

        assert late == got and bodies(theirs) == [b"x"]
        assert desk.host.recalled == got
        assert await desk.transport.inspector.depth() == {}
        await second.stack.aclose()

    async def test_it_goes_on_under_a_new_number(self, desk: Desk, engine: Open) -> None:
        receiver = await desk.take()
        await take_for_dead(desk, engine)
        await desk.transport.publish(MAIL, [message(b"x")])

        got = await receive(receiver, 1)

        assert (await receiver.settle([(got[0], ACKED)])).refused == []

    async def test_a_job_that_kills_three_workers_is_dead(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        await desk.transport.publish(MAIL, [message(b"poison"), message(b"innocent")])
        for _ in range(2):
            victim = Desk(await engine(), clock)
            await receive(await victim.take(), 2)
            await die(victim, engine)
        third = Desk(await engine(), clock)
        alone = await receive(await third.take(), 1)
        assert bodies(alone) == [b"poison"]
        await die(third, engine)

        letters = await desk.transport.inspector.dead()

        assert [(one.body, one.reason) for one in letters] == [
            (b"poison", "its worker died 3 times")
        ]
        assert bodies(await receive(await desk.take(), 1)) == [b"innocent"]

    async def test_a_job_whose_workers_stood_still_is_not_dead(
        self, desk: Desk, engine: Open, clock: SimClock
    ) -> None:
        await desk.transport.publish(MAIL, [message(b"long"), message(b"other")])
        for _ in range(4):
            victim = Desk(await engine(), clock)
            assert len(await receive(await victim.take(), 2)) == 2
            await take_for_dead(victim, engine)

        assert await desk.transport.inspector.dead() == []
        assert bodies(await receive(await desk.take(), 2)) == [b"long", b"other"]

    async def test_everything_is_there_after_reopening(
        self, clock: SimClock, tmp_path: Path
    ) -> None:
        async with SqliteTransport(tmp_path / "again.db", clock=clock) as transport:
            await transport.publish(MAIL, [message(b"x")])
        async with SqliteTransport(tmp_path / "again.db", clock=clock) as transport:
            assert bodies(await receive(await Desk(transport, clock).take(), 1)) == [b"x"]

    async def test_many_callers_share_transactions(self, desk: Desk) -> None:
        await asyncio.gather(*[desk.transport.publish(MAIL, [message()]) for _ in range(200)])

        assert (await desk.transport.inspector.depth())["mail"].waiting == 200
