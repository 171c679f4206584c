"""Clocks that differ, and that are set while all runs."""

import asyncio
import time

from busline.core.clock import SystemClock
from busline.core.outcome import ACKED, Retried
from busline.testing.contract import bodies, message, nothing, receive
from busline.transports.redis import RedisTransport
from tests.servers.redis import Server
from tests.transports.redis.conftest import Engines, RealDesk

HOUR = 3600.0


class Wrong(SystemClock):
    """A machine's clock that is set."""

    def __init__(self) -> None:
        self.shift = 0.0

    def time(self) -> float:
        return time.time() + self.shift


async def test_a_clock_that_is_set_moves_nothing_asked_for_in_seconds(redis: Server) -> None:
    clock = Wrong()
    async with RedisTransport(redis.url, clock=clock) as transport:
        desk = RealDesk(transport)
        receiver = await desk.take()
        for shift in (-HOUR, HOUR):
            clock.shift += shift
            later = message(b"later", due=clock.time() + HOUR / 2, id=f"{shift}", remember=60.0)
            await transport.publish(desk.mail, [message(b"soon", due=clock.time() + 0.1), later])
            (soon,) = await receive(receiver, 1)
            assert (await receiver.settle([(soon, Retried(0.1, ValueError()))])).refused == []
            (again,) = await receive(receiver, 1)
            assert (again.body, again.attempt) == (b"soon", 2)
            await receiver.settle([(again, ACKED)])
            assert await nothing(receiver)
            assert await transport.store.put("k", b"v", 60.0) and await transport.store.get(
                ["k"]
            ) == [b"v"]
            assert await transport.publish(desk.mail, [message(id=f"{shift}", remember=60.0)]) == {
                0: f"{shift}"
            }
        await desk.stack.aclose()


async def test_a_remembered_id_is_known_though_the_clock_is_set(redis: Server) -> None:
    clock = Wrong()
    async with RedisTransport(redis.url, clock=clock) as transport:
        desk = RealDesk(transport)
        receiver = await desk.take()
        await transport.publish(desk.mail, [message(id="x", remember=60.0)])
        await receiver.settle([(one, ACKED) for one in await receive(receiver, 1)])
        clock.shift = HOUR
        await nothing(receiver)  # a turn clears away what is remembered no more

        assert await transport.publish(desk.mail, [message(id="x", remember=60.0)]) == {0: "x"}
        await desk.stack.aclose()


async def test_after_the_servers_clock_was_set_nobody_is_judged_before_a_beat(
    engines: Engines,
) -> None:
    desk, other = await engines.desk(), await engines.desk()
    await desk.transport.publish(desk.mail, [message()])
    receiver = await desk.take()
    got = await receive(receiver, 1)
    lease = other.redis.session.lease
    await asyncio.to_thread(lease.beat)
    assert lease._ahead is not None

    lease._notice(lease._ahead + HOUR, 0.0)  # as if the server said a later time
    for worker in desk.redis.session.lease.workers:
        await desk.redis.session.link.ask("ZADD", f"{desk.redis.session.prefix}live", 1, worker)
    await asyncio.to_thread(lease.reap)

    assert (await receiver.settle([(got[0], ACKED)])).refused == []


async def test_a_lease_from_before_the_servers_clock_was_set_back_ends(engines: Engines) -> None:
    desk, victim = await engines.desk(), await engines.desk(lease=1.0)
    await desk.transport.publish(desk.mail, [message(b"x")])
    await receive(await victim.take(), 1)
    (worker,) = victim.redis.session.lease.workers
    victim.redis.session.lease.end()
    await asyncio.to_thread(victim.redis.session.lease.join)
    await desk.redis.session.link.ask(
        "ZADD", f"{desk.redis.session.prefix}live", round((time.time() + HOUR) * 1000), worker
    )

    async with asyncio.timeout(20):
        while (await desk.transport.inspector.depth())["mail"].waiting == 0:
            await asyncio.to_thread(desk.redis.session.lease.reap)
            await asyncio.sleep(0.05)

    assert bodies(await receive(await desk.take(), 1)) == [b"x"]
