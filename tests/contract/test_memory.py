"""The memory engine passes the contract."""

import pytest

from busline.core.errors import Invalid
from busline.core.outcome import ACKED
from busline.core.ports import Transport
from busline.testing.clock import SimClock
from busline.testing.contract import MAIL, Desk, Open, TransportContract, message, receive
from busline.transports.memory import MemoryTransport


@pytest.fixture
async def engine(clock: SimClock) -> Open:
    transport = MemoryTransport(clock)

    async def engine() -> Transport:
        return transport

    return engine


class TestMemory(TransportContract):
    async def test_a_lost_receiver_is_refused_and_its_job_runs_elsewhere(self, desk: Desk) -> None:
        transport = desk.transport
        assert isinstance(transport, MemoryTransport)
        await transport.publish(MAIL, [message(b"x")])
        receiver = await desk.take()
        got = await receive(receiver, 1)
        transport.lose(transport.receivers[0])

        assert desk.host.recalled == got
        assert await receiver.settle([(got[0], ACKED)]) == got
        assert len(await receive(receiver, 1)) == 1


async def test_partitions_are_fixed_at_first_use() -> None:
    transport = MemoryTransport()
    await transport.publish(type(MAIL)("topic", "t", 4), [])
    with pytest.raises(Invalid, match="'t': expected partitions=4, as the topic has, got 8"):
        await transport.publish(type(MAIL)("topic", "t", 8), [])
