"""What is written: in order for each key, whole or unknown, readable by everyone."""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.producer.transaction_manager import PidAndEpoch

from busline.core.address import Address
from busline.core.errors import ConfigError, Invalid, Unavailable
from busline.core.message import Message
from busline.core.partition import partition
from busline.testing.contract import Desk, bodies, message, receive
from busline.transports.kafka import KafkaTransport, admin, producer
from tests.transports.kafka.conftest import Engines, forbid


async def test_many_callers_keep_the_order_of_each_key(desk: Desk) -> None:
    keys, count, padding = 4, 3000, b"." * 500
    sending = [
        desk.transport.publish(
            desk.orders, [message(b"%06d" % n + padding, key=b"%d" % (n % keys))]
        )
        for n in range(count)
    ]
    await asyncio.gather(*sending)

    got = await receive(await desk.read(ahead=count), count)

    for key in range(keys):
        numbers = [int((one.body or b"")[:6]) for one in got if one.key == b"%d" % key]
        assert numbers == sorted(numbers) and len(numbers) == count // keys


async def test_a_record_that_is_too_large_fails_alone(desk: Desk, engines: Engines) -> None:
    topic = Address("topic", f"small{engines.mark}", 1)
    await (await engines.admin()).create_topics(
        [NewTopic(topic.name, 1, 1, topic_configs={"max.message.bytes": "2000"})]
    )
    publish = desk.transport.publish
    answers = await asyncio.gather(
        *(publish(topic, [message(b"." * size)]) for size in (100, 5000, 200, 1500)),
        return_exceptions=True,
    )

    assert isinstance(
        answers[1], Invalid
    ) and f"'{topic.name}': expected a record that the topic takes" in str(answers[1])
    assert [one for n, one in enumerate(answers) if n != 1] == [{}, {}, {}]
    assert [len(one.body or b"") for one in await receive(await desk.read(topic), 3)] == [
        100,
        200,
        1500,
    ]


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


async def test_an_engine_that_does_not_answer_leaves_the_outcome_unknown(engines: Engines) -> None:
    desk = await engines.desk(patience=1.0)
    await desk.transport.publish(desk.other, [message(b"before")])
    engines.kafka.signal(signal.SIGSTOP)
    try:
        with pytest.raises(
            Unavailable, match=f"'{desk.other.name}': expected a confirmation within 1 s"
        ):
            await desk.transport.publish(desk.other, [message(b"unknown")])
    finally:
        engines.kafka.signal(signal.SIGCONT)
    await (await engines.open()).publish(desk.other, [message(b"after")])

    got = bodies(await receive(await desk.read(desk.other), 2))

    assert got[0] == b"before" and got[1] in (b"unknown", b"after")


async def test_what_was_confirmed_of_a_publish_that_was_not_whole_is_told(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await engines.desk(patience=2.0)
    keys = {partition(key, 4): key for key in (b"%d" % n for n in range(50))}
    messages = [message(b"%d" % part, key=keys[part]) for part in (0, 1, 0, 2)]
    await desk.transport.publish(desk.orders, messages)
    stuck = desk.transport.producer._appender(desk.orders.name, 1)  # type: ignore[attr-defined]  # Kafka's own
    # as a partition without a leader
    monkeypatch.setattr(stuck, "_send", lambda *_: asyncio.Event().wait())

    with pytest.raises(Unavailable) as caught:
        await desk.transport.publish(desk.orders, messages)

    assert caught.value.confirmed == {0, 2, 3}


async def test_closing_does_not_wait_for_an_engine_that_is_away(engines: Engines) -> None:
    transport = KafkaTransport(engines.kafka.url, create_topics=True)
    topic = Address("topic", f"away{engines.mark}", 1)
    async with transport:
        await transport.publish(topic, [message()])
        transport._patience = 0.5
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
    assert record.headers == (
        ("content-type", b"application/json"),
        ("busline-id", b"the-id"),
        *given,
    )


async def test_records_of_other_clients_are_known_by_their_position(
    desk: Desk, engines: Engines
) -> None:
    await desk.transport.publish(desk.other, [])
    other = AIOKafkaProducer(bootstrap_servers=engines.kafka.server)
    await other.start()
    try:
        await other.send_and_wait(
            desk.other.name, b"{}", headers=[("content-type", b"text/plain"), ("", b"odd")]
        )
        await other.send_and_wait(
            desk.other.name, b"{}", headers=[("busline-id", b"their-own"), ("a", b"b")]
        )
        await other.send_and_wait(desk.other.name, b"{}")
    finally:
        await other.stop()

    odd, own, plain = await receive(await desk.read(desk.other), 3)

    assert (odd.id, odd.message.headers) == (
        odd.position,
        (("content-type", b"text/plain"), ("", b"odd")),
    )
    assert (own.id, own.message.headers) == ("their-own", (("a", b"b"),))
    assert (plain.id, plain.message.headers) == (f"{desk.other.name}/0@2", ())


async def test_a_users_content_type_stands_alone(desk: Desk) -> None:
    headers = (("content-type", b"application/json"), ("a", b"b"))
    await desk.transport.publish(
        desk.other, [message(headers=headers), message(headers=headers[1:])]
    )

    own, ours = await receive(await desk.read(desk.other), 2)

    assert (own.message.headers, ours.message.headers) == (headers, headers[1:])


async def test_kafkas_own_tools_write_and_read(desk: Desk, engines: Engines) -> None:
    await desk.transport.publish(desk.other, [message(json.dumps({"n": 1}).encode(), key=b"k")])
    tool = engines.kafka.tool
    await asyncio.to_thread(tool, "produce", "--topic", desk.other.name, text="from the console\n")
    said = await asyncio.to_thread(
        tool,
        "consume",
        "--topic",
        desk.other.name,
        "--from-beginning",
        "--max-messages",
        "2",
        "--timeout-ms",
        "15000",
    )

    assert said.splitlines() == ['{"n": 1}', "from the console"]
    assert bodies(await receive(await desk.read(desk.other), 2)) == [
        b'{"n": 1}',
        b"from the console",
    ]


async def test_a_partition_that_the_client_does_not_know_yet_is_written_to_when_it_does(
    desk: Desk, engines: Engines
) -> None:
    topic = Address("topic", f"grows{engines.mark}")
    others = await engines.admin()
    await others.create_topics([NewTopic(topic.name, 1, 1)])
    assert isinstance(desk.transport, KafkaTransport)
    await desk.transport.publish(topic, [message(key=b"k")])
    await others.create_partitions({topic.name: NewPartitions(2)})
    while (await desk.transport.admin.topic(topic)).parts < 2:
        desk.transport.admin._known.clear()  # it is believed for 30 s

    for n in range(2):
        await desk.transport.publish(
            topic, [message(b"%d" % n, key=b"%d" % one) for one in range(10)]
        )

    assert len(await receive(await desk.read(topic), 21)) == 21


async def test_a_call_with_a_record_that_is_too_large_writes_none_of_them(desk: Desk) -> None:
    await desk.transport.publish(desk.orders, [message(b"before", key=b"k")])
    many = [message(b"." * (2_000_000 if n == 900 else 10), key=b"%d" % n) for n in range(1000)]

    with pytest.raises(
        Invalid,
        match=(
            "a record that the topic takes, of at most 1048588 bytes, got 2000151.*Nothing was sent"
        ),
    ):
        await desk.transport.publish(desk.orders, many)

    await desk.transport.publish(desk.orders, [message(b"after", key=b"k")])
    assert bodies(await receive(await desk.read(), 2)) == [b"before", b"after"]


async def test_where_a_limit_is_not_known_it_is_said_what_was_written(desk: Desk) -> None:
    await desk.transport.publish(desk.orders, [])
    assert isinstance(desk.transport, KafkaTransport)
    known = desk.transport.admin._known
    known[desk.orders.name] = known[desk.orders.name]._replace(limit=None)
    many = [message(b"." * (2_000_000 if n == 50 else 10), key=b"%d" % n) for n in range(100)]

    with pytest.raises(Invalid, match="got 1 of 100 that it does not .*The other 99 are written"):
        await desk.transport.publish(desk.orders, many)

    assert len(await receive(await desk.read(ahead=100), 99)) == 99


async def test_a_record_that_its_topic_does_not_take_is_its_callers_error(desk: Desk) -> None:
    topic = desk.other._replace(compact=True)
    with pytest.raises(Invalid, match="Give it a key if the topic is compacted"):
        await desk.transport.publish(topic, [message()])

    await desk.transport.publish(topic, [message(b"with", key=b"k")])
    assert bodies(await receive(await desk.read(topic), 1)) == [b"with"]


async def test_a_topic_that_grows_is_written_to_all_the_same(
    desk: Desk, engines: Engines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admin, "FRESH", 0.0)
    declared = desk.other._replace(partitions=1)
    await desk.transport.publish(declared, [])
    await (await engines.admin()).create_partitions({declared.name: NewPartitions(3)})

    for n in range(30):
        await desk.transport.publish(declared, [message(key=b"%d" % n)])

    assert len(await receive(await desk.read(desk.other._replace(partitions=None)), 30)) == 30
    assert caplog.text.count("expected partitions=3, as the topic has, got 1") == 1
    with pytest.raises(Invalid, match="expected partitions=3, as the topic has, got 1"):
        await desk.transport.publish(declared, [])


# --- numbers that are lost -------------------------------------------------------------------


def client_of(desk: Desk) -> Any:
    assert isinstance(desk.transport, KafkaTransport)
    return desk.transport.producer._client


async def written_once(desk: Desk, before: int, lose: Callable[[Any], None]) -> None:
    """Publishes to two partitions, loses the numbers, publishes more: all are there, once, in
    order."""
    sent: dict[int, list[bytes]] = {part: [] for part in range(4)}

    async def publish(n: int) -> None:
        body = b"%d" % n
        sent[partition(body, 4)].append(body)
        await desk.transport.publish(desk.orders, [message(body, key=body)])

    for n in range(before):
        await publish(n)
    lose(client_of(desk))
    async with asyncio.timeout(10):
        await asyncio.gather(*(publish(n) for n in range(before, before + 100)))
        await publish(before + 100)

    got: dict[int, list[bytes]] = {part: [] for part in range(4)}
    for one in await receive(await desk.read(ahead=200), before + 101):
        got[partition(one.key or b"", 4)].append(one.body or b"")
    assert got == sent


async def test_numbers_that_do_not_follow_are_given_anew(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def skip(client: Any) -> None:
        client._txn_manager._sequence_numbers[TopicPartition(desk.orders.name, 0)] += 7

    await written_once(desk, 20, skip)

    assert (
        f"{desk.orders.name}/0: the broker has lost count of our records (OutOfOrderSequenceNumber)"
        in caplog.text
    )


async def test_an_epoch_that_is_over_is_given_up(desk: Desk) -> None:
    def fence(client: Any) -> None:
        client._txn_manager._pid_and_epoch = PidAndEpoch(client._txn_manager.producer_id, 0)

    await desk.transport.publish(desk.orders, [message()])
    producer.renumber(client_of(desk), anew=False)
    for _ in range(4):  # each partition sees the next epoch
        await desk.transport.publish(desk.orders, [message()])
    await receive(await desk.read(group="first"), 5)
    reader = await desk.read(start="latest", ahead=300)

    fence(client_of(desk))
    await desk.transport.publish(desk.orders, [message(b"%d" % n, key=b"k") for n in range(100)])

    assert bodies(await receive(reader, 100)) == [b"%d" % n for n in range(100)]


async def test_after_the_last_epoch_there_is_another_id(desk: Desk) -> None:
    def age(client: Any) -> None:
        client._txn_manager._pid_and_epoch = PidAndEpoch(
            client._txn_manager.producer_id, producer.LAST_EPOCH
        )
        client._txn_manager._sequence_numbers.clear()
        producer.renumber(client, anew=False)

    await written_once(desk, 20, age)


async def test_what_an_unknown_error_of_the_client_leaves_open_is_not_sent_again(
    desk: Desk,
) -> None:
    await desk.transport.publish(desk.other, [message(b"before")])
    client_of(desk)._sender._muted_partitions = None  # what it does not expect: its task ends

    with pytest.raises(Unavailable):
        await desk.transport.publish(desk.other, [message(b"open")])
    await written_once(desk, 0, lambda client: None)
    await desk.transport.publish(desk.other, [message(b"after")])

    assert bodies(await receive(await desk.read(desk.other, group="other"), 2)) == [
        b"before",
        b"after",
    ]


async def test_a_refusal_takes_no_numbers_from_those_that_follow(
    desk: Desk, engines: Engines
) -> None:
    await desk.transport.publish(desk.other, [message(b"before")])
    await forbid(engines, "topic", desk.other.name)
    for _ in range(3):
        with pytest.raises(ConfigError, match="expected the right to use it"):
            await desk.transport.publish(desk.other, [message(b"refused")])

    await forbid(engines, "topic", desk.other.name, "--remove")
    await written_once(desk, 0, lambda client: None)
    await published(desk, desk.other, b"after")

    assert bodies(await receive(await desk.read(desk.other, group="other"), 2)) == [
        b"before",
        b"after",
    ]


async def test_what_nobody_waits_for_is_not_written_when_a_topic_comes_back(
    engines: Engines,
) -> None:
    desk, others = await engines.desk(), await engines.admin()
    await desk.transport.publish(desk.other, [message(b"before")])
    assert isinstance(desk.transport, KafkaTransport)
    desk.transport._patience = 0.5
    await others.delete_topics([desk.other.name])
    await asyncio.wait((client_of(desk).client.force_metadata_update(),))
    with pytest.raises(Unavailable, match="expected a confirmation within 0.5 s"):
        await desk.transport.publish(desk.other, [message(b"lost")])

    await others.create_topics([NewTopic(desk.other.name, 1, 1)])
    await published(desk, desk.other, b"after")

    assert bodies(await receive(await desk.read(desk.other), 1)) == [b"after"]


async def published(desk: Desk, topic: Address, body: bytes) -> None:
    """Again and again, until the cluster has noticed what was changed."""
    async with asyncio.timeout(20):
        while True:
            try:
                await desk.transport.publish(topic, [message(body)])
                return
            except (Unavailable, ConfigError):
                await asyncio.sleep(0.05)
