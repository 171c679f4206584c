"""What stands in the server: as other languages and redis-cli see it, and what scripts make of
foreign bytes."""

import asyncio
import time

import pytest

from busline.core.errors import Invalid
from busline.core.ids import new_id
from busline.core.message import Message, Options
from busline.core.outcome import ACKED, Acked, Keep, Outcome, Rejected, Send
from busline.testing.clock import SimClock
from busline.testing.contract import Desk, ack, bodies, message, nothing, receive
from busline.transports.redis import RedisTransport
from busline.transports.redis.envelope import pack, unpack
from tests.servers.redis import Server
from tests.transports.redis.conftest import Engines

BODY = b'{"email":"someone@example.org","cents":500,"lines":["a","b","c"],"note":"12345"}'


async def test_a_queue_is_a_plain_list(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message() for _ in range(3)])

    assert redis.say("LLEN", "{busline}:queue:mail") == b":3\r\n"
    assert redis.say("TYPE", "{busline}:queue:mail") == b"+list\r\n"


async def test_a_waiting_job_takes_little(engines: Engines) -> None:
    desk = await engines.desk()
    jobs = [Message(new_id(), BODY, (), None, time.time(), "send_receipt") for _ in range(2000)]
    await desk.transport.publish(desk.mail, jobs)

    key = "{busline}:queue:mail"
    used = await desk.redis.session.link.ask("MEMORY", "USAGE", key, "SAMPLES", "0")

    assert used / 2000 <= 250
    print(f"{used / 2000:.0f} bytes for a waiting job of an {len(BODY)} byte body")


async def test_nothing_is_left_when_jobs_are_done(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    await desk.transport.publish(
        desk.mail, [message(due=time.time() + 0.05), message(), message(unique="k")]
    )
    await receiver.settle([(one, ACKED) for one in await receive(receiver, 3)])
    await desk.stack.aclose()

    left = {key.decode() for key in await desk.redis.session.link.ask("KEYS", "*")}

    assert {key.partition(":")[2].partition(":")[0] for key in left} <= {
        "layout",
        "queues",
        "counts",
        "producer",
        "wake",
        "keeper",
    }


async def test_bytes_that_are_no_envelope_become_dead_letters(
    engines: Engines, redis: Server
) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    packed = pack(message(id="broken"), "mail")
    broken = packed[:1] + b"\x01" + packed[2:]
    for raw in (b"garbage", b"", b"\x01" * 30, broken):
        await desk.redis.session.link.ask("RPUSH", "{busline}:queue:mail", raw)
    await desk.transport.publish(desk.mail, [message(b"good")])

    assert bodies(await receive(receiver, 1)) == [b"good"]
    async with asyncio.timeout(5):
        while len(letters := await desk.transport.inspector.dead()) < 4:
            await asyncio.sleep(0.01)
    assert {one.body for one in letters} == {b"garbage", b"", b"\x01" * 30, broken}
    assert {one.address for one in letters} == {"mail"}
    assert {one.reason for one in letters} == {"not an envelope that this version of busline reads"}
    assert await desk.transport.inspector.redrive([letters[0].id]) == (1, ())
    assert await desk.transport.inspector.purge([one.id for one in letters[1:]]) == 3


async def test_an_envelope_of_another_version_waits_for_a_newer_worker(redis: Server) -> None:
    clock = SimClock()
    async with RedisTransport(redis.url, clock=clock) as transport:
        desk = Desk(transport, clock)
        receiver = await desk.take()
        flagged = bytearray(pack(message(id="flagged"), "mail"))
        flagged[1] |= 16
        newer = b"\x02" + pack(message(id="newer"), "mail")[1:]
        await transport.session.link.ask("RPUSH", "{busline}:queue:mail", bytes(flagged), newer)

        for _ in range(15):
            assert await nothing(receiver)
            assert (await transport.inspector.depth())["mail"].retrying == 2
            clock.move(61)
            await transport.publish(desk.mail, [message()])
            await ack(receiver, await receive(receiver, 1))
        clock.move(61)
        assert await nothing(receiver)

        letters = await transport.inspector.dead()
        assert {one.body for one in letters} == {bytes(flagged), newer}
        await desk.stack.aclose()


async def test_sends_that_can_never_be_done_bury_their_delivery(
    engines: Engines, redis: Server
) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    await desk.transport.publish(desk.mail, [message(id="a"), message(id="b"), message(id="c")])
    redis.say("SET", "{busline}:queue:post", "a string")
    a, b, c = await receive(receiver, 3)
    to_topic = Acked((Keep("half", b"1", 60), Send(desk.orders, message())))

    assert (
        await receiver.settle(
            [(a, desk.sending(b"x")), (b, to_topic), (c, Acked((Keep("whole", b"1", 60),)))]
        )
    ).refused == []

    assert {
        one.id: one.reason.partition(":")[0] for one in await desk.transport.inspector.dead()
    } == dict.fromkeys("ab", "its sends cannot be done")
    assert await desk.transport.store.get(["half", "whole"]) == [None, b"1"]


async def test_jobs_of_one_id_are_told_apart_in_hand(engines: Engines) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    for n in range(3):
        await desk.transport.publish(desk.mail, [message(b"%d" % n, id="same")])
    got = await receive(receiver, 2, limit=2)
    got += await receive(receiver, 1)

    assert bodies(got) == [b"0", b"1", b"2"]
    assert (await receiver.settle([(got[1], ACKED), (got[2], Rejected("no"))])).refused == []
    assert (await desk.transport.inspector.depth())["mail"].running == 1
    assert (await receiver.settle([(got[0], ACKED)])).refused == []


async def test_a_look_among_many_says_waiting_of_a_young_id(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busline.transports.redis.inspector.FEW", 2)
    desk = await engines.desk()
    look, young = desk.transport.inspector.look, new_id()
    await desk.transport.publish(
        desk.mail, [message() for _ in range(2)] + [message(id="given", remember=60.0)]
    )

    assert (await look(young)).state == "waiting"
    assert (await look("given")).state == "waiting"
    assert (await look("nobody")).state == "unknown"
    assert (await look("00000000" + young[8:])).state == "unknown"


async def test_namespaces_do_not_see_each_other(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message()])
    async with RedisTransport(redis.url, namespace="other") as other:
        assert await other.inspector.depth() == {}


def test_an_envelope_comes_out_as_it_went_in() -> None:
    headers = (("h", b"\xff"), ("h", None), ("é", b""))
    whole = Message(
        "i",
        b"\x00",
        headers,
        b"\xff",
        1.5,
        "täsk",
        2.5,
        "u",
        3.25,
        Options(1.0, {"attempts": 2}),
        "t/0@1",
    )
    for one in (whole, Message("x", None), Message("x", b"")):
        found = unpack(pack(one, "queue", 7))
        assert (found.queue, found.attempts) == ("queue", 7)
        assert all(getattr(found.message, name) == getattr(one, name) for name in Message.__slots__)


def test_a_long_id_is_refused() -> None:
    with pytest.raises(Invalid, match="at most 65535 bytes"):
        pack(Message("x" * 70_000, b""), "q")


def test_one_transport_is_opened_in_one_loop_after_another(redis: Server) -> None:
    transport = RedisTransport(redis.url)

    async def once() -> None:
        async with transport:
            desk = Desk(transport, SimClock())
            waiting = asyncio.ensure_future(transport.store.wait("k", None))
            await transport.publish(desk.mail, [message()])
            receiver = await desk.take()
            await receiver.settle(
                [((await receive(receiver, 1))[0], Acked((Keep("k", b"v", 0.5),)))]
            )
            assert await waiting == b"v"
            await desk.stack.aclose()

    asyncio.run(once())
    redis.say("DEL", "{busline}:fact:k")
    asyncio.run(once())


async def test_pages_of_dead_letters_go_on_behind_one_that_is_gone(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(id=f"j{n}") for n in range(4)])
    receiver, inspector = await desk.take(), desk.transport.inspector
    await receiver.settle([(one, Rejected("no")) for one in await receive(receiver, 4)])
    page = [one.id for one in await inspector.dead(limit=2)]
    await inspector.purge(page)

    assert [one.id for one in await inspector.dead(limit=1, after=page[-1])] == ["j2"]
    assert [one.id for one in await inspector.dead(after="j2")] == ["j3"]


async def test_what_cannot_be_written_is_refused_at_the_send(engines: Engines) -> None:
    desk = await engines.desk()
    for wrong in (
        message(id="\ud800"),
        message(task="\ud800"),
        message(options=Options(1.0, {"x": object()})),
        message(at=None),
    ):
        with pytest.raises(Invalid, match="a job that can be written|at most 65535"):
            await desk.transport.publish(desk.mail, [message(), wrong])
    assert "mail" not in await desk.transport.inspector.depth()


async def test_an_outcome_that_cannot_be_written_is_buried_and_no_other(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(id=f"j{n}") for n in range(4)])
    receiver = await desk.take()
    got = await receive(receiver, 4)
    wrong: list[Outcome] = [
        Acked((Keep("\ud800", b"v", 60.0),)),
        Acked((Send(desk.post, message(options=Options(1.0, {"x": object()}))),)),
        Rejected(404),  # type: ignore[arg-type]  # what a user's code may bring
    ]

    assert (
        await receiver.settle(
            [*zip(got, wrong, strict=False), (got[3], Acked((Keep("k", b"v", 60.0),)))]
        )
    ).refused == []

    assert {one.id for one in await desk.transport.inspector.dead()} == {"j0", "j1", "j2"}
    assert await desk.transport.store.get(["k"]) == [b"v"]
    assert (await desk.transport.inspector.depth())["mail"].running == 0
