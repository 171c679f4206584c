"""What travels in one command is bounded in bytes, and asking reads no bodies."""

import asyncio

import pytest

from busline import App
from busline.core.errors import Unavailable
from busline.core.ids import new_id
from busline.core.outcome import ACKED, Acked, Keep, Rejected
from busline.testing.contract import bodies, message, receive
from busline.transports.redis.receiver import by_size
from tests.servers.redis import Server, Wire
from tests.transports.redis.conftest import Engines

LARGE = bytes(900 * 1024)


async def test_a_hand_out_holds_what_was_asked_for_in_bytes(engines: Engines) -> None:
    desk = await engines.desk()
    sizes = [400, 400, 400, 5000, 100, *[10] * 50]
    await desk.transport.publish(desk.mail, [message(bytes(size)) for size in sizes])
    receiver = await desk.take(batch_bytes=1200)
    found: list[int] = []
    while len(found) < len(sizes):
        got = await receiver.receive(100)
        taken = [len(one.body or b"") for one in got]
        assert sum(taken) <= 1200 or len(taken) == 1
        found += taken

    assert found == sizes
    assert (await desk.transport.inspector.depth())["mail"][:4] == (0, 0, 0, len(sizes))


async def test_what_is_read_does_not_wait_for_a_token(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(bytes(600)) for _ in range(20)])
    receiver = await desk.take(batch_bytes=1000)
    redis.say("DEL", "{busline}:wake:mail")

    assert len(await receive(receiver, 20)) == 20


async def test_a_lost_answer_is_made_up_for_by_what_is_not_known_alone(
    engines: Engines, redis: Server
) -> None:
    async with Wire(redis) as wire:
        desk, other = await engines.desk(wire.url), await engines.desk()
        receiver = await desk.take()
        await other.transport.publish(other.mail, [message(LARGE, id=f"a{n}") for n in range(3)])
        held = await receive(receiver, 3)
        wire.loses_answers_after = b"EVALSHA"
        await other.transport.publish(other.mail, [message(LARGE, id=f"b{n}") for n in range(3)])
        with pytest.raises(Unavailable):
            await receiver.receive(10)
        redis.say("CONFIG", "RESETSTAT")

        got = await receive(receiver, 3)

        assert sorted(one.id for one in got) == ["b0", "b1", "b2"] and all(
            one.body == LARGE for one in got
        )
        assert b"cmdstat_hgetall" not in redis.say("INFO", "commandstats")
        assert (await receiver.settle([(one, ACKED) for one in (*held, *got)])).refused == []


async def test_large_outcomes_leave_in_parts(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(LARGE, id=f"{n}") for n in range(8)])
    receiver = await desk.take()
    got = await receive(receiver, 8)
    effects = [Acked((Keep(f"k{n}", LARGE, 60.0),)) for n in range(4)]

    assert (
        await receiver.settle(
            [*zip(got, effects, strict=False), *((one, Rejected("no")) for one in got[4:])]
        )
    ).refused == []

    assert await desk.transport.store.get([f"k{n}" for n in range(4)]) == [LARGE] * 4
    assert len(await desk.transport.inspector.dead()) == 4
    assert [len(part) for part in by_size([LARGE] * 3 + [b"x"] * 5, len)] == [1, 1, 6]


async def test_looks_beside_large_jobs_read_none_of_them(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    large = [message(LARGE, id=new_id()) for _ in range(40)]
    await desk.transport.publish(desk.mail, [*large, message(id=new_id())])
    taker = await desk.take(desk.mail)
    await receive(taker, 2)
    redis.say("CONFIG", "RESETSTAT")

    assert (await desk.transport.inspector.look(large[-1].id)).state == "waiting"
    assert (await desk.transport.inspector.look("nobody")).state == "unknown"
    assert (await desk.transport.inspector.depth())["mail"][:4] == (39, 0, 0, 2)
    told = redis.say("INFO", "commandstats").decode()
    assert "cmdstat_lrange" not in told and "cmdstat_hvals" not in told


async def test_many_looks_share_a_question(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    jobs = [message(id=new_id()) for _ in range(300)]
    await desk.transport.publish(desk.mail, jobs)
    redis.say("CONFIG", "RESETSTAT")

    looks = await asyncio.gather(*[desk.transport.inspector.look(one.id) for one in jobs])
    facts = await asyncio.gather(*[desk.transport.store.get([one.id]) for one in jobs])

    assert {one.state for one in looks} == {"waiting"} and facts == [[None]] * 300
    told = redis.say("INFO", "commandstats").decode()
    calls = dict(line.split(":calls=") for line in told.splitlines() if ":calls=" in line)
    assert int(calls["cmdstat_evalsha"].split(",")[0]) <= 4


async def test_large_answers_come_in_parts(engines: Engines) -> None:
    desk = await engines.desk()
    for n in range(8):
        await desk.transport.store.put(f"k{n}", LARGE, 60.0)

    assert await desk.transport.store.get([f"k{n}" for n in range(8)]) == [LARGE] * 8


async def test_a_large_send_leaves_in_parts_and_in_its_order(engines: Engines) -> None:
    desk = await engines.desk()
    jobs = [message(LARGE[:-1] + b"%d" % n, id=f"{n}", remember=60.0 * (n % 2)) for n in range(6)]

    assert await desk.transport.publish(desk.mail, [*jobs, message(id="0"), jobs[1]]) == {
        6: "0",
        7: "1",
    }

    got = await receive(await desk.take(), 6)
    assert bodies(got) == [one.body for one in jobs]


async def test_what_finished_and_what_takes_its_room_travel_in_one_command(redis: Server) -> None:
    count, app = 2000, App("shop", jobs=redis.url)
    done = asyncio.Event()
    left = [count]

    @app.task
    async def note(n: int) -> None:
        left[0] -= 1
        if not left[0]:
            done.set()

    async with app:
        await app.enqueue_many(note.call(n) for n in range(count))
    redis.say("CONFIG", "RESETSTAT")
    async with app.running():
        await done.wait()

    told = redis.say("INFO", "commandstats").decode()
    calls = int(told.partition("cmdstat_evalsha:calls=")[2].partition(",")[0])
    assert calls < 1.5 * count / 100  # a hundred are in hand at once
