"""The memory engine passes the contract."""

import pytest

from busline.core.errors import Invalid
from busline.core.outcome import ACKED, Rejected
from busline.core.ports import Transport
from busline.testing.clock import SimClock
from busline.testing.contract import (
    MAIL,
    OTHER,
    Desk,
    OneEngine,
    Open,
    ack,
    bodies,
    message,
    nothing,
    receive,
)
from busline.transports.memory import MemoryTransport


@pytest.fixture
async def engine(clock: SimClock) -> Open:
    transport = MemoryTransport(clock)

    async def engine() -> Transport:
        return transport

    return engine


class TestMemory(OneEngine):
    async def test_a_lost_receiver_is_refused_and_its_job_runs_elsewhere(self, desk: Desk) -> None:
        transport = desk.transport
        assert isinstance(transport, MemoryTransport)
        await transport.publish(MAIL, [message(b"x")])
        receiver = await desk.take()
        got = await receive(receiver, 1)
        transport.lose(transport.receivers[0])

        assert desk.host.recalled == got
        assert (await receiver.settle([(got[0], ACKED)])).refused == got
        assert len(await receive(receiver, 1)) == 1

    async def test_a_lost_reader_is_refused_and_the_next_takes_over(
        self, desk: Desk, clock: SimClock
    ) -> None:
        transport = desk.transport
        assert isinstance(transport, MemoryTransport)
        await transport.publish(OTHER, [message(b"0"), message(b"1")])
        reader, standby = await desk.read(OTHER), await desk.read(OTHER)
        got = await receive(reader, 2)
        await ack(reader, got[1:])
        assert await nothing(standby)

        transport.lose(transport.receivers[0])

        assert desk.host.recalled == got[:1]
        assert bodies(await receive(standby, 1)) == [b"0"]
        assert await ack(reader, got[:1]) == got[:1]

    async def test_it_is_quiet_when_no_receiver_could_take_anything(
        self, desk: Desk, clock: SimClock
    ) -> None:
        transport = desk.transport
        assert isinstance(transport, MemoryTransport)
        await transport.publish(MAIL, [message(), message(due=clock.time() + 5)])
        assert transport.quiet()
        receiver = await desk.take()
        assert not transport.quiet()

        await receive(receiver, 1)

        assert transport.quiet()
        clock.move(5)
        assert not transport.quiet()

    async def test_it_shows_what_was_sent_and_what_was_raised(self, desk: Desk) -> None:
        transport = desk.transport
        assert isinstance(transport, MemoryTransport)
        await transport.publish(MAIL, [message(b"0", id="a"), message(b"again", id="a")])
        receiver, error = await desk.take(), ValueError()
        await receiver.settle([((await receive(receiver, 1))[0], Rejected("no", error))])

        assert [one.body for one in transport.published(MAIL)] == [b"0"]
        assert transport.errors == {"a": error}

        await transport.inspector.purge(["a"])

        assert transport.errors == {}


async def test_partitions_are_fixed_at_first_use() -> None:
    transport = MemoryTransport()
    await transport.publish(type(MAIL)("topic", "t", 4), [])
    with pytest.raises(Invalid, match="'t': expected partitions=4, as the topic has, got 8"):
        await transport.publish(type(MAIL)("topic", "t", 8), [])
