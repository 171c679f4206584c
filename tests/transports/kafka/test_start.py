"""What keeps a transport from starting is said, each in its own words."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from busline.core.address import Address
from busline.core.errors import ConfigError, Invalid, Unavailable
from busline.testing.contract import message, receive
from busline.transports.kafka import KafkaTransport
from tests.servers.kafka import free_ports
from tests.transports.kafka.conftest import Engines, forbid


async def test_nobody_listens() -> None:
    (port,) = free_ports(1)

    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: nobody listens there"):
        async with KafkaTransport(f"kafka://127.0.0.1:{port}"):
            pass


async def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(Unavailable, match="nowhere.invalid:9092: no such host"):
        async with KafkaTransport("kafka://nowhere.invalid"):
            pass


@asynccontextmanager
async def answering(text: bytes) -> AsyncGenerator[int]:
    """A server that says the same to everyone and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(text)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "text", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x0a"]
)
async def test_a_server_that_speaks_something_else_is_told_apart(text: bytes) -> None:
    async with answering(text) as port:
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: it hung up"):
            async with KafkaTransport(f"kafka://127.0.0.1:{port}"):
                pass


async def test_a_missing_topic_is_named_with_the_way_to_make_it(engines: Engines) -> None:
    transport = await engines.open(create_topics=False)
    desk = await engines.desk()
    missing = Address("topic", f"missing{engines.mark}", 2)

    with pytest.raises(Unavailable, match=f"'{missing.name}': .* --create-topics"):
        await transport.publish(missing, [message()])
    with pytest.raises(Unavailable, match=f"'{missing.name}': .* --create-topics"):
        await desk.beside(transport).read(missing)

    await desk.transport.publish(missing, [message()])

    await transport.publish(missing, [message()])


async def test_a_topic_that_does_not_say_gets_the_clusters_number_of_partitions(
    engines: Engines,
) -> None:
    transport, topic = await engines.open(), Address("topic", f"plain{engines.mark}")
    await transport.publish(topic, [message()])

    with pytest.raises(Invalid, match="expected partitions=3"):
        await transport.publish(topic._replace(partitions=4), [])


async def test_queues_and_facts_are_refused_with_a_remedy(engines: Engines) -> None:
    transport = await engines.open()
    with pytest.raises(Invalid, match="BUSLINE_JOBS"):
        await transport.publish(Address("queue", "mail"), [message()])
    with pytest.raises(Invalid, match="BUSLINE_JOBS"):
        _ = transport.store
    with pytest.raises(Invalid, match="BUSLINE_JOBS"):
        await transport.inspector.redrive(["g/t/0@1"])
    assert (await transport.inspector.look("x")).state == "unknown"
    assert (await transport.inspector.depth(), await transport.inspector.counts()) == ({}, {})


async def test_a_topic_that_belongs_to_others_is_refused(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.other, [message()])
    reader = await desk.read(desk.other, group="before")
    await receive(reader, 1)
    await forbid(engines, "topic", desk.other.name)
    fresh = await engines.open()

    with pytest.raises(
        ConfigError,
        match=f"'{desk.other.name}': expected the right to use it, got TopicAuthorizationFailed",
    ):
        await fresh.publish(desk.other, [message()])
    with pytest.raises(ConfigError, match=f"'{desk.other.name}': expected the right to use it"):
        await desk.beside(fresh).read(desk.other)
    with pytest.raises(ConfigError, match=f"'{desk.other.name}': expected the right to use it"):
        await desk.transport.publish(desk.other, [message()])
    with pytest.raises(ConfigError, match=f"'{desk.other.name}': expected the right to use it"):
        await receive(reader, 1)


async def test_a_group_that_belongs_to_others_is_refused(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.other, [message()])
    await forbid(engines, "group", f"g{engines.mark}")

    with pytest.raises(
        ConfigError, match="expected the right to use it, got GroupAuthorizationFailed"
    ):
        await desk.read(desk.other)


async def test_a_group_of_another_client_is_told_apart(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.other, [message()])
    other = AIOKafkaConsumer(
        desk.other.name, bootstrap_servers=engines.kafka.server, group_id=f"g{engines.mark}"
    )
    await other.start()
    try:
        with pytest.raises(
            Invalid,
            match="expected a group of busline's members, got living members of another client",
        ):
            await receive(await desk.read(desk.other), 1)
    finally:
        await other.stop()


async def test_a_topic_that_is_made_has_what_its_declaration_asks_for(engines: Engines) -> None:
    desk, admin = await engines.desk(), await engines.admin()
    await desk.transport.publish(desk.other._replace(retention=60.0), [])
    await desk.transport.publish(desk.orders._replace(compact=True), [])

    async def setting(topic: str, name: str) -> str:
        (answer,) = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {name: None})]
        )
        return str(answer.resources[0][4][0][1])

    assert await setting(desk.other.name, "retention.ms") == "60000"
    assert await setting(desk.other.name, "cleanup.policy") == "delete"
    assert await setting(desk.orders.name, "cleanup.policy") == "compact"
