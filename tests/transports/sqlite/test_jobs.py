"""Queues where they share a file: ids that are there, letters that go back, jobs that ended their
processes."""

import asyncio

import pytest

from busline.core.address import Address
from busline.core.outcome import ACKED, Acked, Rejected, Send
from busline.core.ports import Subscription, Transport
from busline.testing.contract import MAIL, OTHER, bodies, message, nothing, receive
from busline.transports.sqlite import SqliteTransport
from busline.transports.sqlite.errors import Busy
from tests.transports.sqlite.conftest import Engines

SECOND = Address("queue", "second")


async def test_ids_that_live_are_reported_by_their_index(engines: Engines) -> None:
    transport = await engines.open()
    await transport.publish(MAIL, [message(id="b"), message(id="u", unique="k")])

    there = await transport.publish(
        MAIL,
        [
            message(id="a"),
            message(id="b"),
            message(id="c", unique="k"),
            message(id="d"),
            message(id="d"),
        ],
    )

    assert there == {1: "b", 2: "u", 4: "d"}
    bulk = [message(id=f"n{n % 250}") for n in range(300)]
    assert await transport.publish(MAIL, bulk) == {n: f"n{n - 250}" for n in range(250, 300)}


async def test_jobs_of_one_call_keep_their_order(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(
        MAIL,
        [
            message(b"0"),
            message(b"1", unique="k"),
            message(b"2"),
            message(b"3", id="x", remember=9.0),
            message(b"4"),
        ],
    )

    assert bodies(await receive(await desk.take(), 5)) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_letter_goes_back_to_the_queue_it_came_from(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(SECOND, [message(id="j")])
    both = await desk.take(MAIL, SECOND)
    await both.settle([((await receive(both, 1))[0], Rejected("no"))])

    await desk.transport.inspector.redrive(["j"])

    assert (await desk.transport.inspector.depth())["second"].waiting == 1


async def test_no_queue_starves_another(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(MAIL, [message(b"first") for _ in range(100)])
    await desk.transport.publish(SECOND, [message(b"second")])
    both = await desk.take(MAIL, SECOND)

    assert b"second" in bodies([*await both.receive(5), *await both.receive(5)])


async def test_an_effect_that_can_never_be_applied_is_a_dead_letter(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(b"record")])
    await desk.transport.publish(MAIL, [message(b"job"), message(b"innocent")])
    taker, reader = await desk.take(), await desk.read(OTHER)
    wrong = Acked((Send(Address("topic", "other", 7), message()),))
    job, innocent = await receive(taker, 2)
    record = (await receive(reader, 1))[0]

    assert (await taker.settle([(job, wrong), (innocent, ACKED)])).refused == []
    assert (await reader.settle([(record, wrong)])).refused == []

    letters = await desk.transport.inspector.dead()
    assert [one.body for one in letters] == [b"job", b"record"]
    assert "expected partitions=1, as the topic has, got 7" in letters[0].reason
    assert (await desk.transport.inspector.depth()) == {}


async def test_a_reason_with_lone_surrogates_is_kept(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(MAIL, [message()])
    taker = await desk.take()

    await taker.settle(
        [((await receive(taker, 1))[0], Rejected("bad \ud800", ValueError("\ud800")))]
    )

    assert (await desk.transport.inspector.dead())[0].reason == "bad \\ud800"


async def test_what_could_not_be_given_back_is_given_back_at_the_end(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await engines.desk()

    async def busy(operation: object) -> None:
        raise Busy("locked")

    async with SqliteTransport(engines.path, clock=engines.clock) as transport:
        await transport.publish(MAIL, [message(b"x")])
        async with transport.subscribe(Subscription((MAIL,)), desk.host) as receiver:
            await receiver.receive(1)
            monkeypatch.setattr(transport.session, "patiently", busy)

    assert bodies(await receive(await desk.take(), 1)) == [b"x"]


async def test_a_cancelled_settle_is_known_to_be_done(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(b"%d" % n) for n in range(2)])
    reader = await desk.read(OTHER)
    got = await receive(reader, 2)
    effects = Acked((Send(MAIL, message(b"once")),))
    settling = asyncio.ensure_future(reader.settle([(got[0], effects)]))
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)

    await reader.settle([(got[1], ACKED)])
    late, _ = await reader.settle([(got[0], effects)])

    assert late == [got[0]]
    assert (await desk.transport.inspector.depth())["mail"].waiting == 1
    assert [one.behind for one in await desk.transport.inspector.lag()] == [0]


async def deaths(transport: Transport, count: int) -> None:
    assert isinstance(transport, SqliteTransport)
    await transport.file.write(
        lambda db: db.execute("UPDATE job SET deaths = ? WHERE queue = 'mail'", (count,)).rowcount
    )


async def test_a_job_that_ended_two_processes_waits_to_be_alone_whatever_the_queue(
    engines: Engines,
) -> None:
    first = await engines.desk()
    await first.transport.publish(MAIL, [message(b"poison")])
    for _ in range(2):
        victim = await engines.desk()
        await receive(await victim.take(), 1)
        await engines.take_for_dead()
    await first.transport.publish(SECOND, [message(b"one"), message(b"two")])
    desk = await engines.desk()
    mail, second = await desk.take(), await desk.take(SECOND)
    await deaths(desk.transport, 0)
    held = await receive(second, 1)
    await deaths(desk.transport, 2)

    waiting = asyncio.ensure_future(receive(mail, 1))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await second.settle([(held[0], ACKED)])
    alone = await waiting
    assert bodies(alone) == [b"poison"]
    assert await nothing(second)
    others = asyncio.ensure_future(receive(second, 1))
    await asyncio.sleep(0.02)
    await mail.settle([(alone[0], ACKED)])

    assert bodies(await others) == [b"two"]


async def test_none_begins_while_a_job_waits_to_be_alone(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.take()
    second = await desk.take(SECOND)
    await desk.transport.publish(SECOND, [message(), message()])
    await receive(second, 1)
    await desk.transport.publish(MAIL, [message(b"poison")])
    await deaths(desk.transport, 2)

    assert await nothing(second)


async def test_an_old_delivery_never_settles_a_new_job_in_its_place(engines: Engines) -> None:
    desk = await engines.desk()
    taker = await desk.take()
    await desk.transport.publish(MAIL, [message(b"old")])
    old = await receive(taker, 1)
    await taker.settle([(old[0], ACKED)])
    await desk.transport.publish(MAIL, [message(b"new")])
    await receive(taker, 1)

    assert (await taker.settle([(old[0], ACKED)])).refused == old
    assert (await desk.transport.inspector.depth())["mail"].running == 1


async def test_one_due_moment_of_many_jobs_loses_none(engines: Engines) -> None:
    desk = await engines.desk()
    taker = await desk.take()
    for start in range(0, 2500, 500):
        await desk.transport.publish(
            MAIL,
            [message(b"%d" % n, due=engines.clock.time() + 5) for n in range(start, start + 500)],
        )
    engines.clock.move(5.1)

    assert len(set(bodies(await receive(taker, 2500)))) == 2500
