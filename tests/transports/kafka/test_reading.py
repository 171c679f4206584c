"""What other clients write, and what a disk made of it: it is read, or its own partition stands
still and says so."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from busline.testing.contract import Desk, ack, bodies, receive
from tests.servers.kafka import Kafka
from tests.transports.kafka.conftest import Engines
from tests.transports.kafka.test_groups import committed, fill


class Raw(str):
    """A header's name that is written as these bytes."""

    def encode(self, *_: object) -> bytes:
        return b"\xffname"


async def produce(engines: Engines, topic: str, *bodies: bytes, **options: object) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=engines.kafka.server, **options)
    async with producer:
        for body in bodies:
            await producer.send_and_wait(topic, body)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(desk: Desk, engines: Engines, codec: str) -> None:
    await desk.transport.publish(desk.other, [])
    await produce(
        engines, desk.other.name, *(b"%d" % n * 100 for n in range(3)), compression_type=codec
    )

    assert bodies(await receive(await desk.read(desk.other), 3)) == [
        b"0" * 100,
        b"1" * 100,
        b"2" * 100,
    ]


async def test_a_headers_name_that_is_no_text_is_read_and_what_stands_around_it(
    desk: Desk, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.transport.publish(desk.other, [])
    for module in "producer", "message_accumulator":  # the plain form lets a name through as bytes
        monkeypatch.setattr(
            f"aiokafka.producer.{module}.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy
        )
    producer = AIOKafkaProducer(
        bootstrap_servers=engines.kafka.server, linger_ms=200, compression_type="gzip"
    )
    async with producer:
        sent = [
            await producer.send(
                desk.other.name, b"%d" % n, headers=[(Raw("x"), b"v")] if n == 2 else []
            )
            for n in range(5)
        ]
        await asyncio.gather(*sent)

    got = await receive(await desk.read(desk.other), 5)

    assert bodies(got) == [b"0", b"1", b"2", b"3", b"4"]
    assert got[2].message.headers == (("\\xffname", b"v"),)
    assert got[2].message.at > 1_600_000_000


async def test_what_cannot_be_read_stops_its_own_partition_and_is_told_once(
    desk: Desk, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(desk, desk.orders, 40)
    spoil(engines.kafka, f"{desk.orders.name}-2")
    reader = await desk.read(desk.orders, order="key")
    there = 40 - await length(engines, desk.orders.name, 2)

    got = await receive(reader, there)
    await ack(reader, got)
    waiting = asyncio.ensure_future(reader.receive(10))
    async with asyncio.timeout(10):
        while sum((await committed(desk, "g", desk.orders)).values()) < there:
            await asyncio.sleep(0.05)

    assert desk.host.waiting.keys() == {f"{desk.orders.name}/2"}
    assert (
        f"'{desk.orders.name}/2@0': expected a record that can be read, got CorruptRecordException"
        in caplog.text
    )
    assert caplog.text.count("a record that can be read") == 1
    waiting.cancel()
    await desk.stack.aclose()
    assert desk.host.waiting == {}


async def length(engines: Engines, topic: str, part: int) -> int:
    transport = await engines.open()
    (end,) = (await transport.admin.logs.end([TopicPartition(topic, part)])).values()
    return end


def spoil(kafka: Kafka, log: str) -> None:
    """Turns a byte of the last record, on the broker's disk."""
    (path,) = (kafka.nodes[0].folder / "data" / log).glob("*.log")
    with path.open("r+b") as file:
        file.seek(-2, 2)
        byte = file.read(1)[0]
        file.seek(-2, 2)
        file.write(bytes([byte ^ 0xFF]))
