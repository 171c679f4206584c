"""Every part of the client's inside that the transport uses is there: when this fails, a new client
needs a look."""

import asyncio
import inspect
import re
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer.transaction_manager import PidAndEpoch
from aiokafka.protocol.commit import OffsetCommitRequest

from busline.testing.contract import Desk, message, receive
from busline.transports import kafka
from busline.transports.kafka import KafkaTransport, diagnosis
from busline.transports.kafka.reader import Reader


async def test_a_members_parts(desk: Desk) -> None:
    reader = await desk.read(desk.other)
    await desk.transport.publish(desk.other, [message()])
    await receive(reader, 1)
    assert isinstance(reader, Reader)
    consumer = reader._member.consumer

    assert isinstance(consumer, AIOKafkaConsumer) and isinstance(
        consumer._coordinator, GroupCoordinator
    )
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    assert (coordinator.generation, bool(coordinator.member_id), coordinator.group_id) == (
        1,
        True,
        f"g{desk.mark}",
    )
    assert coordinator.coordinator_id == 1
    for name in (
        "_send_req",
        "coordinator_dead",
        "fetch_committed_offsets",
        "check_errors",
        "request_rejoin",
    ):
        assert callable(getattr(coordinator, name))
    assert (
        isinstance(fetcher, Fetcher)
        and isinstance(fetcher._records, dict)
        and isinstance(fetcher._fetch_task, asyncio.Task)
    )
    for name in ("_notify", "_create_fetch_waiter"):
        assert callable(getattr(fetcher, name))
    assert fetcher._wait_consume_future is not None
    assert (
        isinstance(consumer._subscription, SubscriptionState)
        and consumer._subscription._fetch_count == 1
    )


def test_what_is_fetched() -> None:
    assert {"_topic_partition", "_partition_records", "_assignment", "check_assignment"} <= names(
        FetchResult
    )
    assert {"_error"} <= names(FetchError)
    assert {"_records", "_consumer_record", "next_fetch_offset"} <= names(PartitionRecords)
    assert OffsetCommitRequest.DEFAULT_RETENTION_TIME == -1


async def test_a_producers_parts(desk: Desk) -> None:
    await desk.transport.publish(desk.other, [message()])
    assert isinstance(desk.transport, KafkaTransport)
    producer = desk.transport.producer._client

    assert isinstance(producer, AIOKafkaProducer)
    assert not producer._sender.sender_task.done() and callable(producer._sender.close)
    manager, accumulator = producer._txn_manager, producer._message_accumulator
    assert (
        manager._sequence_numbers == {TopicPartition(desk.other.name, 0): 1}
        and not manager._pid_waiter.cancelled()
    )
    assert manager._pid_and_epoch == PidAndEpoch(
        manager.producer_id, manager.producer_epoch
    ) and callable(producer.client.close)
    assert (accumulator._batch_ttl, accumulator._batch_size) == (float("inf"), 128 * 1024)
    assert producer._metadata.leader_for_partition(TopicPartition(desk.other.name, 0)) == 1
    assert producer._metadata.unauthorized_topics == set()
    assert all(
        callable(getattr(producer.client, name)) for name in ("force_metadata_update", "add_topic")
    )
    assert (
        callable(AIOKafkaClient._metadata_update)
        and producer.client._metadata_update.__name__ == "again"
    )
    assert errors.for_code(87) is diagnosis.InvalidRecordError


def names(kind: type) -> set[str]:
    """A class's attributes, those of its objects as well."""
    return {
        *dir(kind),
        *(
            word.partition("self.")[2]
            for word in inspect.getsource(kind).split()
            if word.startswith("self.")
        ),
    }


INSIDE = re.compile(
    r"\._(coordinator|coordination_task|subscription|fetcher|sender|txn_manager|metadata"
    r"|message_accumulator|client\._|send_request|send_req|pid_and_epoch|sequence_numbers)\b"
)


def test_the_clients_inside_is_known_in_the_rooms_that_say_so() -> None:
    found = {
        file.name
        for file in Path(kafka.__file__).parent.glob("*.py")
        if INSIDE.search(file.read_text().replace("self._subscription", ""))
    }
    assert found == {"cluster.py", "fetched.py"}
