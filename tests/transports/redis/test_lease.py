"""Leases, and what becomes of a worker's hand when its lease is over."""

import asyncio
import time
from datetime import timedelta

import pytest

from busline.core.counts import Whose
from busline.core.outcome import ACKED, RELEASED, Acked, Keep, Retried, Send
from busline.testing.contract import bodies, message, nothing, receive
from busline.transports.redis.receiver import QueueReceiver
from tests.servers.redis import Server
from tests.transports.redis.conftest import Engines, RealDesk


async def take_for_dead(desk: RealDesk, by: RealDesk) -> None:
    """As if the desk's workers had not beaten for long: another process clears them away."""
    for receiver in desk.redis.receivers:
        await by.redis.session.link.ask("ZADD", "{busline}:live", 1, receiver.worker)
    await asyncio.to_thread(by.redis.session.lease.reap)


async def die(desk: RealDesk, by: RealDesk) -> None:
    """As if the desk's process had been killed: the server sees its connection closed."""
    desk.redis.session.lease.end()
    await asyncio.to_thread(desk.redis.session.lease.join)
    while desk.redis.session.lease.connection and await by.redis.session.link.ask(
        "CLIENT", "LIST", "ID", desk.redis.session.lease.connection
    ):
        await asyncio.sleep(0.01)
    await take_for_dead(desk, by)


async def test_a_worker_taken_for_dead_settles_nothing(engines: Engines) -> None:
    desk, other = await engines.desk(), await engines.desk()
    await other.transport.publish(other.mail, [message(b"x", id="1"), message(b"y", id="2")])
    receiver = await desk.take()
    got = await receive(receiver, 2)
    for one in got:
        one.handler = "send"
    await take_for_dead(desk, other)
    theirs = await receive(await other.take(), 2)

    effects = Acked((Send(desk.post, message(b"effect")), Keep("k", b"v", 60)))
    assert (await receiver.settle([(got[0], effects), (got[1], ACKED)])).refused == got

    assert bodies(theirs) == [b"x", b"y"]
    assert "post" not in await other.transport.inspector.depth()
    assert await other.transport.store.get(["k"]) == [None]
    assert (await other.transport.inspector.counts())[Whose("mail", "send")].refused == 2


async def test_a_result_of_a_worker_taken_for_dead_is_not_kept(engines: Engines) -> None:
    desk, other = await engines.desk(), await engines.desk()
    await other.transport.publish(other.mail, [message()])
    receiver = await desk.take()
    got = await receive(receiver, 1)
    await take_for_dead(desk, other)

    assert (await receiver.settle([(got[0], Acked((Keep("k", b"v", 60),)))])).refused == got

    assert await other.transport.store.get(["k"]) == [None]


async def test_it_is_recalled_and_goes_on_under_a_new_name(engines: Engines) -> None:
    desk, other = await engines.desk(lease=1.0), await engines.desk()
    receiver = await desk.take()
    await other.transport.publish(other.mail, [message(b"x")])
    got = await receive(receiver, 1)
    await take_for_dead(desk, other)
    again = await receive(receiver, 1)

    assert desk.host.recalled == got
    assert again[0].body == b"x" and again[0].receipt != got[0].receipt and again[0].attempt == 1
    assert (await receiver.settle([(got[0], ACKED)])).refused == got
    assert (await receiver.settle([(again[0], ACKED)])).refused == []


async def test_a_lease_is_renewed_while_the_loop_is_blocked(engines: Engines) -> None:
    desk, other = await engines.desk(lease=1.0), await engines.desk()
    await desk.transport.publish(desk.mail, [message()])
    receiver = await desk.take()
    got = await receive(receiver, 1)

    time.sleep(1.5)
    await asyncio.to_thread(other.redis.session.lease.reap)

    assert (await receiver.settle([(got[0], ACKED)])).refused == []


async def test_a_lease_that_ran_out_while_nobody_looked_is_renewed(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message()])
    receiver = await desk.take()
    assert isinstance(receiver, QueueReceiver)
    got = await receive(receiver, 1)
    live = f"{desk.redis.session.prefix}live"
    await desk.redis.session.link.ask("ZADD", live, 1, receiver.worker)

    await asyncio.to_thread(desk.redis.session.lease.beat)
    await asyncio.to_thread(desk.redis.session.lease.reap)

    assert (await receiver.settle([(got[0], ACKED)])).refused == []


async def test_a_job_that_kills_three_workers_is_dead(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(
        desk.mail,
        [message(b"poison", id="1", task="send", unique="k"), message(b"innocent", id="2")],
    )
    for _ in range(2):
        victim = await engines.desk()
        assert bodies(await receive(await victim.take(), 2)) == [b"poison", b"innocent"]
        await die(victim, desk)
    third = await engines.desk()
    receiver = await third.take()
    assert bodies(await receiver.receive(10)) == [b"poison"]
    assert await nothing(receiver)
    await die(third, desk)

    letters = await desk.transport.inspector.dead()

    assert [(one.body, one.handler, one.reason, one.attempts) for one in letters] == [
        (b"poison", "send", "its worker died 3 times", 1)
    ]
    assert (await desk.transport.inspector.counts())[Whose("mail", "send")].dead == 1
    assert await desk.transport.publish(desk.mail, [message(unique="k")]) == {}


async def test_a_job_whose_workers_stood_still_is_not_dead(
    engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(b"long"), message(b"other")])
    for _ in range(4):
        victim = await engines.desk()
        assert len(await receive(await victim.take(), 2)) == 2
        while not victim.redis.session.lease.connection:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(victim.redis.session.lease.beat)
        await take_for_dead(victim, desk)

    assert await desk.transport.inspector.dead() == []
    assert "stands still" in caplog.text and "died" not in caplog.text
    assert sorted(bodies(await receive(await desk.take(), 2)), key=str) == [b"long", b"other"]


async def test_what_ended_two_workers_runs_alone(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(b"poison")])
    for _ in range(2):
        victim = await engines.desk()
        await receive(await victim.take(), 1)
        await die(victim, desk)
    await desk.transport.publish(desk.mail, [message(b"1")])
    await desk.transport.publish(desk.post, [message(b"2"), message(b"3")])
    post, mail = await desk.take(desk.post), await desk.take()
    busy = await receive(post, 1)

    before = commands(redis)
    assert await nothing(mail)  # something else is in this process's hand
    assert await nothing(post)
    assert commands(redis) - before < 20
    taking = asyncio.ensure_future(receive(mail, 1))
    await post.settle([(busy[0], ACKED)])
    alone = await taking
    assert bodies(alone) == [b"poison"]
    assert await nothing(post) and await nothing(mail)
    await mail.settle([(alone[0], ACKED)])

    assert bodies(await receive(mail, 1)) == [b"1"]
    assert bodies(await receive(post, 1)) == [b"3"]


async def test_a_suspect_stays_one_when_it_is_given_back_or_retried(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(b"poison")])
    for _ in range(2):
        victim = await engines.desk()
        await receive(await victim.take(), 1)
        await die(victim, desk)
    receiver = await desk.take()
    for outcome in (RELEASED, Retried(0, ValueError())):
        await receiver.settle([((await receive(receiver, 1))[0], outcome)])
    await desk.transport.publish(desk.mail, [message(b"other")])

    assert bodies(await receiver.receive(10)) == [b"poison"]
    assert (await desk.transport.inspector.depth())["mail"][::3] == (1, 1)


async def test_a_big_hand_is_given_back_in_its_order(engines: Engines) -> None:
    desk, victim = await engines.desk(), await engines.desk()
    await desk.transport.publish(desk.mail, [message(b"%d" % n, id=f"{n:04}") for n in range(600)])
    assert len(await receive(await victim.take(), 500, limit=500)) == 500

    await take_for_dead(victim, desk)

    got = await receive(await desk.take(), 600, limit=600)
    assert [int(one.body or b"") for one in got] == list(range(600))


async def test_a_delayed_job_starts_although_its_timekeeper_died(
    engines: Engines, redis: Server
) -> None:
    desk, keeper = await engines.desk(), await engines.desk()
    kept = await keeper.take()
    assert await nothing(kept)
    await desk.transport.publish(
        desk.mail, [message(b"later", due=time.time() + timedelta(seconds=1).total_seconds())]
    )
    await asyncio.sleep(0.05)
    receiver = await desk.take()
    taking = asyncio.ensure_future(receive(receiver, 1))
    await take_for_dead(keeper, desk)

    async with asyncio.timeout(4):
        assert bodies(await taking) == [b"later"]


@pytest.mark.parametrize("count", [1, 3])
async def test_idle_workers_ask_little(engines: Engines, redis: Server, count: int) -> None:
    desks = [await engines.desk() for _ in range(count)]
    taking = [asyncio.ensure_future((await desk.take()).receive(1)) for desk in desks]
    await asyncio.sleep(0.1)
    before = commands(redis)

    await asyncio.sleep(3)

    asked = (commands(redis) - before - 1) / 3
    for one in taking:
        one.cancel()
    assert asked / count <= 5


def commands(server: Server) -> int:
    """How many commands the clients have asked, without those inside scripts."""
    told = server.say("INFO", "commandstats").decode()
    calls = dict(line.split(":calls=") for line in told.splitlines() if ":calls=" in line)
    return sum(
        int(calls.get(f"cmdstat_{name}", "0").split(",")[0])
        for name in ("evalsha", "blpop", "ping", "mget")
    )
