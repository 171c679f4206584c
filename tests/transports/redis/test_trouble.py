"""Answers that do not come, connections that are cut, a server that restarts, freezes, or refuses
writes."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

import pytest

from busline.core.counts import Whose
from busline.core.errors import Unavailable
from busline.core.message import Delivery
from busline.core.outcome import ACKED, Acked, Keep, Retried
from busline.core.ports import Receiver
from busline.testing.contract import ack, bodies, message, nothing, receive
from busline.transports.redis.envelope import pack
from tests.servers.redis import Server, Wire, running
from tests.transports.redis.conftest import Engines, RealDesk


@pytest.fixture
async def wire(redis: Server) -> AsyncGenerator[Wire]:
    async with Wire(redis) as wire:
        yield wire


async def patiently(receiver: Receiver, count: int, seconds: float = 5.0) -> list[Delivery]:
    """As a worker receives: again while the engine is away."""
    found: list[Delivery] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            try:
                found += await receiver.receive(count - len(found))
            except Unavailable:
                await asyncio.sleep(0.05)
    return found


async def settled(receiver: Receiver, deliveries: list[Delivery]) -> list[Delivery]:
    async with asyncio.timeout(5):
        while True:
            try:
                return list(await ack(receiver, deliveries))
            except Unavailable:
                await asyncio.sleep(0.05)


async def waiting(desk: RealDesk) -> tuple[int, int]:
    depth = (await desk.transport.inspector.depth())["mail"]
    return depth.waiting, depth.running


async def test_a_send_whose_answer_is_lost_is_sent_again_and_not_doubled(
    engines: Engines, wire: Wire
) -> None:
    desk = await engines.desk(wire.url)
    await desk.transport.publish(desk.mail, [message(id="warm")])
    wire.loses_answers_after = b"the-first"  # in this send alone: a lease beats by EVALSHA too

    sent = [message(id="the-first"), message(id="b", remember=60.0)]
    assert await desk.transport.publish(desk.mail, sent) == {}

    assert wire.lost == 1
    assert await waiting(desk) == (3, 0)


async def test_jobs_whose_arrival_was_lost_are_found_in_hand(engines: Engines, wire: Wire) -> None:
    desk, other = await engines.desk(wire.url), await engines.desk()
    receiver = await desk.take()
    await other.transport.publish(other.mail, [message(b"%d" % n) for n in range(5)])
    wire.loses_answers_after = b"EVALSHA"

    got = await patiently(receiver, 5)

    assert wire.lost == 1
    assert sorted(bodies(got), key=str) == [b"0", b"1", b"2", b"3", b"4"]
    assert await settled(receiver, got) == []
    assert await waiting(other) == (0, 0)


async def test_an_acknowledgement_whose_answer_was_lost_counts_once(
    engines: Engines, wire: Wire
) -> None:
    desk, other = await engines.desk(wire.url), await engines.desk()
    await other.transport.publish(other.mail, [message() for _ in range(3)])
    receiver = await desk.take()
    got = await receive(receiver, 3)
    for one in got:
        one.handler = "send"
    wire.loses_answers_after = b"EVALSHA"

    with pytest.raises(Unavailable):
        await receiver.settle([(one, ACKED) for one in got])
    assert await settled(receiver, got) == []

    assert wire.lost == 1
    assert (await other.transport.inspector.counts())[Whose("mail", "send")].handled == 3
    assert (await receiver.settle([(got[0], ACKED)])).refused == got[:1]


async def test_a_retry_whose_answer_was_lost_counts_one_attempt(
    engines: Engines, wire: Wire
) -> None:
    desk, other = await engines.desk(wire.url), await engines.desk()
    await other.transport.publish(other.mail, [message()])
    receiver = await desk.take()
    got = await receive(receiver, 1)
    taking = asyncio.ensure_future(patiently(receiver, 1))
    wire.loses_answers_after = b"retried"

    with pytest.raises(Unavailable):
        await receiver.settle([(got[0], Retried(0, ValueError()))])
    await receiver.settle([(got[0], Retried(0, ValueError()))])

    assert (await taking)[0].attempt == 2


async def test_killed_connections_lose_nothing(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    taking = asyncio.ensure_future(patiently(receiver, 20))
    for n in range(20):
        redis.say("CLIENT", "KILL", "TYPE", "normal")
        await desk.transport.publish(desk.mail, [message(b"%d" % n)])

    got = await taking

    assert sorted(int(one.body or b"") for one in got) == list(range(20))
    assert await settled(receiver, got) == []


async def test_forgotten_scripts_are_loaded_again(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    for _ in range(3):
        redis.say("SCRIPT", "FLUSH")
        await desk.transport.publish(desk.mail, [message()])
        redis.say("SCRIPT", "FLUSH")
        assert (await receiver.settle([((await receive(receiver, 1))[0], ACKED)])).refused == []


async def test_a_restarted_server_with_aof_has_everything(engines: Engines) -> None:
    with running(appendonly="yes") as server:
        desk = await engines.desk(server.url)
        receiver = await desk.take()
        await desk.transport.publish(
            desk.mail,
            [message(b"hand"), message(b"waits"), message(b"later", due=time.time() + 0.5)],
        )
        got = await receive(receiver, 1)
        server.kill()
        begun = time.monotonic()
        server.start()

        assert await settled(receiver, got) == []
        assert bodies(await patiently(receiver, 2)) == [b"waits", b"later"]
        assert time.monotonic() - begun < 5
        assert not desk.host.recalled
        await desk.stack.aclose()


async def test_a_server_that_is_away_is_told_once_and_waited_for(engines: Engines) -> None:
    with running(appendonly="yes") as server:
        desk = await engines.desk(server.url)
        receiver = await desk.take()
        server.kill()
        sending = asyncio.ensure_future(
            desk.transport.publish(desk.mail, [message(b"sent meanwhile")])
        )
        with pytest.raises(
            Unavailable, match=f"'redis://127.0.0.1:{server.port}': expected an answer"
        ):
            await receiver.receive(1)
        assert not sending.done()

        server.start()

        assert await sending == {}
        assert bodies(await patiently(receiver, 1)) == [b"sent meanwhile"]
        await desk.stack.aclose()


async def test_a_frozen_server_loses_nothing(engines: Engines) -> None:
    with running() as server:
        desk = await engines.desk(server.url)
        receiver = await desk.take()
        await desk.transport.publish(desk.mail, [message(b"0"), message(b"1")])
        got = await receive(receiver, 1)
        server.freeze()
        with pytest.raises(Unavailable):
            await receiver.settle([(got[0], ACKED)])
        server.thaw()
        begun = time.monotonic()

        assert await settled(receiver, got) == []
        rest = await patiently(receiver, 1)
        assert bodies(rest) == [b"1"] and time.monotonic() - begun < 5
        assert await settled(receiver, rest) == []
        assert await waiting(desk) == (0, 0)
        await desk.stack.aclose()


async def test_a_demoted_server_is_waited_for(engines: Engines) -> None:
    with running() as server, running() as primary:
        desk = await engines.desk(server.url)
        receiver = await desk.take()
        await desk.transport.publish(desk.mail, [message(b"before")])
        got = await receive(receiver, 1)
        server.say("CONFIG", "SET", "replica-serve-stale-data", "yes")
        # nobody there: it keeps what it has, and takes no writes
        server.say("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(Unavailable, match="a server that is ready for writes"):
            await receiver.settle([(got[0], ACKED)])
        sending = asyncio.ensure_future(desk.transport.publish(desk.mail, [message(b"after")]))
        server.say("REPLICAOF", "NO", "ONE")

        assert await settled(receiver, got) == []
        assert await sending == {}
        assert bodies(await patiently(receiver, 1)) == [b"after"]
        assert primary.port != server.port
        await desk.stack.aclose()


async def test_a_full_server_refuses_sends_at_once_and_takes_acknowledgements(
    engines: Engines,
) -> None:
    with running() as server:
        desk = await engines.desk(server.url)
        receiver = await desk.take()
        await desk.transport.publish(desk.mail, [message(b"0")])
        got = await receive(receiver, 1)
        server.say("CONFIG", "SET", "maxmemory", "1")

        with pytest.raises(Unavailable, match="a server that takes writes"):
            await desk.transport.publish(desk.mail, [message(b"1")])
        assert (await receiver.settle([(got[0], ACKED)])).refused == []

        server.say("CONFIG", "SET", "maxmemory", "0")
        assert await desk.transport.publish(desk.mail, [message(b"2")]) == {}
        assert bodies(await receive(receiver, 1)) == [b"2"]
        await desk.stack.aclose()


async def test_a_waiter_hears_of_its_fact_over_a_cut_connection(
    engines: Engines, wire: Wire
) -> None:
    desk, other = await engines.desk(wire.url), await engines.desk()
    hearing = asyncio.ensure_future(desk.transport.store.wait("k", None))
    while b"fact:k" not in redis_channels(other):
        await asyncio.sleep(0.005)
    wire.drop()
    await other.transport.store.put("k", b"v", 60)

    async with asyncio.timeout(5):
        assert await hearing == b"v"


def redis_channels(desk: RealDesk) -> bytes:
    server = Server(None, desk.redis.session.place.port)  # type: ignore[arg-type]  # only asked
    return server.say("PUBSUB", "CHANNELS")


async def test_leaving_while_the_server_is_away_says_what_becomes_of_the_rest(
    engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    with running() as server:
        desk = await engines.desk(server.url)
        await desk.transport.publish(desk.mail, [message()])
        await receive(await desk.take(), 1)
        server.kill()
        with caplog.at_level(logging.WARNING, "busline"):
            await desk.stack.aclose()

    assert "given back when this worker's lease ends" in caplog.text


async def test_a_full_server_takes_beats_and_newcomers(engines: Engines) -> None:
    with running() as server:
        desk = await engines.desk(server.url, lease=1.0)
        # one that only sends: it beats for nobody, and looks after the dead
        await engines.open(server.url, lease=1.0)
        await desk.transport.publish(desk.mail, [message(id="a"), message(id="b")])
        receiver = await desk.take()
        got = await receive(receiver, 2)
        server.say("CONFIG", "SET", "maxmemory", "1")
        await asyncio.sleep(2.5)

        assert await settled(receiver, got) == [] and desk.host.recalled == []
        await desk.take()
        server.say("CONFIG", "SET", "maxmemory", "0")


async def test_whoever_waits_for_a_send_hears_that_the_transport_was_closed(
    engines: Engines,
) -> None:
    with running() as server:
        desk = await engines.desk(server.url)
        server.freeze()
        sends = []
        for _ in range(2):
            sends.append(asyncio.ensure_future(desk.transport.publish(desk.mail, [message()])))
            await asyncio.sleep(0.05)

        await desk.redis._producer.close()

        async with asyncio.timeout(5):
            assert [type(one) for one in await asyncio.gather(*sends, return_exceptions=True)] == [
                Unavailable,
                Unavailable,
            ]
        server.thaw()


async def turns(desk: RealDesk) -> int:
    """How many scripts the server ran in half a second."""
    before = (await desk.redis.session.link.ask("INFO", "commandstats")).decode()
    await asyncio.sleep(0.5)
    after = (await desk.redis.session.link.ask("INFO", "commandstats")).decode()
    first, last = [
        int(text.partition("cmdstat_evalsha:calls=")[2].partition(",")[0])
        for text in (before, after)
    ]
    return last - first


async def test_who_waits_for_a_job_that_runs_alone_does_not_ask_without_end(
    engines: Engines, redis: Server
) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(id="a")])
    receiver, other = await desk.take(), await desk.take(desk.post)
    (first,) = await receive(receiver, 1)
    envelope = pack(message(id="suspect"), "mail")
    await desk.redis.session.link.ask(
        "RPUSH", "{busline}:suspect:mail", envelope[:4] + b"\2" + envelope[5:]
    )
    waiting = asyncio.ensure_future(receiver.receive(5))
    await asyncio.sleep(0.1)
    assert await turns(desk) < 20  # it waits until nothing else is in hand

    await receiver.settle([(first, ACKED)])
    (alone,) = await waiting
    await desk.transport.publish(desk.mail, [message(id="b")])
    waiting, beside = (
        asyncio.ensure_future(receiver.receive(5)),
        asyncio.ensure_future(other.receive(5)),
    )
    await asyncio.sleep(0.1)
    assert await turns(desk) < 20  # it runs

    await receiver.settle([(alone, ACKED)])
    await desk.transport.publish(desk.post, [message(id="c")])
    assert [one.id for one in (*await waiting, *await beside)] == ["b", "c"]


async def test_a_redrive_loses_no_bytes_that_are_no_envelope(
    engines: Engines, redis: Server
) -> None:
    desk = await engines.desk()
    await desk.redis.session.link.ask("RPUSH", "{busline}:queue:mail", b"\x01ab")
    await nothing(await desk.take())
    await asyncio.sleep(0.1)
    (letter,) = await desk.transport.inspector.dead()

    assert (await desk.transport.inspector.redrive([letter.id])).again == 1


async def test_what_is_asked_on_a_connection_that_died_in_silence_is_asked_again(
    engines: Engines, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busline.transports.redis.link.SOON", 0.2)
    desk, other = await engines.desk(wire.url), await engines.desk()
    await other.transport.publish(other.mail, [message(id="j")])
    await other.transport.store.put("k", b"v", 60.0)
    inspector, store = desk.transport.inspector, desk.transport.store
    assert (await inspector.look("j")).state == "waiting"
    for ask in (
        lambda: inspector.look("j"),
        lambda: store.get(["k"]),
        inspector.depth,
        inspector.counts,
        inspector.dead,
    ):
        wire.forget()
        await ask()


async def test_a_long_answer_may_take_its_time(
    engines: Engines, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busline.transports.redis.link.ANSWER", 0.5)
    desk, other = await engines.desk(wire.url), await engines.desk()
    receiver, body = await desk.take(), bytes(500 * 1024)
    wire.pause = 0.1  # at 64 KiB a time a body takes 0.8 s
    await other.transport.publish(other.mail, [message(body, id="in")])

    (got,) = await receive(receiver, 1)
    assert (await receiver.settle([(got, Acked((Keep("k", body, 60.0),)))])).refused == []
    assert await desk.transport.publish(desk.mail, [message(body, id="out")]) == {}

    assert await desk.transport.store.get(["k"]) == [body]


async def test_a_job_to_be_run_alone_is_so_though_its_arrival_was_lost(
    engines: Engines, wire: Wire
) -> None:
    desk, other = await engines.desk(wire.url), await engines.desk()
    mail, post = await desk.take(), await desk.take(desk.post)
    envelope = pack(message(b"poison"), "mail")
    wire.loses_answers_after = b"EVALSHA"
    await other.redis.session.link.ask(
        "RPUSH", "{busline}:suspect:mail", envelope[:4] + b"\x02" + envelope[5:]
    )

    alone = await patiently(mail, 1)

    assert bodies(alone) == [b"poison"]
    await other.transport.publish(desk.post, [message(b"innocent")])
    assert await nothing(post)
    await settled(mail, alone)
    taking = asyncio.ensure_future(mail.receive(1))
    assert bodies(await receive(post, 1)) == [b"innocent"]
    taking.cancel()


async def test_a_lease_that_the_server_refuses_to_renew_is_told_and_tried_again(
    engines: Engines, redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    desk = await engines.desk(lease=1.0)
    receiver = await desk.take()
    await desk.transport.publish(desk.mail, [message()])
    got = await receive(receiver, 1)
    redis.say("SET", "{busline}:leases", "not a hash")
    async with asyncio.timeout(10):
        while "lease is not renewed" not in caplog.text:
            await asyncio.sleep(0.02)
    assert "WRONGTYPE" in caplog.text
    redis.say("DEL", "{busline}:leases")
    while not redis.say("HKEYS", "{busline}:leases").startswith(b"*1"):
        await asyncio.sleep(0.02)

    assert (await receiver.settle([(got[0], ACKED)])).refused == []
