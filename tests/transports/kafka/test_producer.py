"""What is written: in order for each key, whole or unknown, readable by everyone."""

import asyncio
import json
import signal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions, NewTopic

from busline.core.address import Address
from busline.core.errors import Invalid, Unavailable
from busline.core.message import Message
from busline.core.partition import partition
from busline.testing.contract import Desk, bodies, message, receive
from busline.transports.kafka import KafkaTransport, producer
from tests.transports.kafka.conftest import Engines


async def test_many_callers_keep_the_order_of_each_key(desk: Desk) -> None:
    keys, count, padding = 4, 3000, b"." * 500
    sending = [desk.transport.publish(desk.orders, [message(b"%06d" % n + padding, key=b"%d" % (n % keys))]) for n in range(count)]
    await asyncio.gather(*sending)

    got = await receive(await desk.read(ahead=count), count)

    for key in range(keys):
        numbers = [int((one.body or b"")[:6]) for one in got if one.key == b"%d" % key]
        assert numbers == sorted(numbers) and len(numbers) == count // keys


async def test_a_record_that_is_too_large_fails_alone(desk: Desk, engines: Engines) -> None:
    topic = Address("topic", f"small{engines.mark}", 1)
    await (await engines.admin()).create_topics([NewTopic(topic.name, 1, 1, topic_configs={"max.message.bytes": "2000"})])
    publish = desk.transport.publish
    answers = await asyncio.gather(*(publish(topic, [message(b"." * size)]) for size in (100, 5000, 200, 1500)), return_exceptions=True)

    assert isinstance(answers[1], Invalid) and f"'{topic.name}': expected a record that the topic takes" in str(answers[1])
    assert [one for n, one in enumerate(answers) if n != 1] == [{}, {}, {}]
    assert [len(one.body or b"") for one in await receive(await desk.read(topic), 3)] == [100, 200, 1500]


async def test_the_largest_body_fits(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message(b"." * 960 * 1024)])

    assert len((await receive(await desk.read(desk.other), 1))[0].body or b"") == 960 * 1024


async def test_a_record_without_key_and_body_travels(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [Message("id", None)])

    (got,) = await receive(await desk.read(desk.other), 1)

    assert (got.id, got.body, got.key) == ("id", None, None)


async def test_keyless_records_are_spread(desk: Desk) -> None:
    await desk.transport.publish(desk.orders, [message() for _ in range(8)])

    got = await receive(await desk.read(), 8)

    assert sorted(str(one.position).partition("@")[0][-1] for one in got) == list("00112233")


async def test_what_the_client_cannot_write_is_its_callers_error(desk: Desk) -> None:
    with pytest.raises(TypeError):
        await desk.transport.publish(desk.other, [message("text")])  # type: ignore[arg-type]  # what must not be

    await desk.transport.publish(desk.other, [message(b"next")])
    assert bodies(await receive(await desk.read(desk.other), 1)) == [b"next"]


async def test_an_engine_that_does_not_answer_leaves_the_outcome_unknown(desk: Desk, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.transport.publish(desk.other, [message(b"before")])
    monkeypatch.setattr(producer, "PATIENCE", 1.0)
    engines.kafka.signal(signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match=f"'{desk.other.name}': expected a confirmation within 1 s"):
            await desk.transport.publish(desk.other, [message(b"unknown")])
    finally:
        engines.kafka.signal(signal.SIGCONT)
    monkeypatch.undo()
    await desk.transport.publish(desk.other, [message(b"after")])

    got = bodies(await receive(await desk.read(desk.other), 2))

    assert got[0] == b"before" and got[1] in (b"unknown", b"after")


async def test_closing_does_not_wait_for_an_engine_that_is_away(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = KafkaTransport(engines.kafka.url, create_topics=True)
    monkeypatch.setattr(producer, "PATIENCE", 0.5)
    topic = Address("topic", f"away{engines.mark}", 1)
    async with transport:
        await transport.publish(topic, [message()])
        engines.kafka.signal(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable):
                await transport.publish(topic, [message()])
            async with asyncio.timeout(producer.CLOSING + 4):
                await transport.producer.close()
        finally:
            engines.kafka.signal(signal.SIGCONT)


async def test_other_clients_read_it_plainly(desk: Desk, engines: Engines) -> None:
    given = (("traceparent", b"00-1-2-01"), ("mine", b"x"))
    sent = Message("the-id", b'{"n": 1}', given, b"k", 5.25)
    await desk.transport.publish(desk.orders, [sent])
    reader = AIOKafkaConsumer(bootstrap_servers=engines.kafka.server, auto_offset_reset="earliest")
    place = TopicPartition(desk.orders.name, partition(b"k", 4))
    reader.assign([place])
    await reader.start()
    try:
        record = await asyncio.wait_for(reader.getone(place), 10)
    finally:
        await reader.stop()

    assert (record.value, record.key, record.timestamp) == (b'{"n": 1}', b"k", 5250)
    assert record.headers == (("content-type", b"application/json"), ("busline-id", b"the-id"), *given)


async def test_records_of_other_clients_are_known_by_their_position(desk: Desk, engines: Engines) -> None:
    await desk.transport.publish(desk.other, [])
    other = AIOKafkaProducer(bootstrap_servers=engines.kafka.server)
    await other.start()
    try:
        await other.send_and_wait(desk.other.name, b"{}", headers=[("content-type", b"text/plain"), ("", b"odd")])
        await other.send_and_wait(desk.other.name, b"{}", headers=[("busline-id", b"their-own"), ("a", b"b")])
        await other.send_and_wait(desk.other.name, b"{}")
    finally:
        await other.stop()

    odd, own, plain = await receive(await desk.read(desk.other), 3)

    assert (odd.id, odd.message.headers) == (odd.position, (("content-type", b"text/plain"), ("", b"odd")))
    assert (own.id, own.message.headers) == ("their-own", (("a", b"b"),))
    assert (plain.id, plain.message.headers) == (f"{desk.other.name}/0@2", ())


async def test_a_users_content_type_stands_alone(desk: Desk) -> None:
    headers = (("content-type", b"application/json"), ("a", b"b"))
    await desk.transport.publish(desk.other, [message(headers=headers), message(headers=headers[1:])])

    own, ours = await receive(await desk.read(desk.other), 2)

    assert (own.message.headers, ours.message.headers) == (headers, headers[1:])


async def test_kafkas_own_tools_write_and_read(desk: Desk, engines: Engines) -> None:
    await desk.transport.publish(desk.other, [message(json.dumps({"n": 1}).encode(), key=b"k")])
    tool = engines.kafka.tool
    await asyncio.to_thread(tool, "produce", "--topic", desk.other.name, text="from the console\n")
    said = await asyncio.to_thread(tool, "consume", "--topic", desk.other.name, "--from-beginning", "--max-messages", "2", "--timeout-ms", "15000")

    assert said.splitlines() == ['{"n": 1}', "from the console"]
    assert bodies(await receive(await desk.read(desk.other), 2)) == [b'{"n": 1}', b"from the console"]


async def test_a_partition_that_the_client_does_not_know_yet_is_written_to_when_it_does(desk: Desk, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Address("topic", f"grows{engines.mark}")
    admin = await engines.admin()
    await admin.create_topics([NewTopic(topic.name, 1, 1)])
    assert isinstance(desk.transport, KafkaTransport)
    await desk.transport.publish(topic, [message(key=b"k")])
    await admin.create_partitions({topic.name: NewPartitions(2)})
    desk.transport.admin._known.clear()  # it is believed for 30 s
    while await desk.transport.admin.partitions(topic) < 2:
        desk.transport.admin._known.clear()
    monkeypatch.setattr(producer, "PATIENCE", 5.0)

    for n in range(2):
        await desk.transport.publish(topic, [message(b"%d" % n, key=b"%d" % one) for one in range(10)])

    assert len(await receive(await desk.read(topic), 21)) == 21
