"""A cluster, and the client library's objects for it. The library has no types of its own, and
where it stops this transport reaches inside: here, in `fetched` and in `lenient` alone, and a test
names every attribute that is used."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PidAndEpoch
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.default_records import DefaultRecordBatch

from busline.core.errors import Unavailable, wrong
from busline.transports.kafka.diagnosis import reason
from busline.transports.kafka.wire import Record

T = TypeVar("T")
PAUSE = 0.1  # seconds
ANSWER = 4.0  # seconds a server has to answer one question
LAST_EPOCH = 2**15 - 1
own = logging.getLogger("aiokafka")
if own.level == logging.NOTSET:
    # it tells each try, and at length what busline says in its own words: who wants that sets it
    own.setLevel(logging.CRITICAL)
# reads every codec but gzip: the client uses it where it is there, and here it has to be
import_module("cramjam")


class Cluster:
    """Where a cluster's servers are. Makes every client that talks to it."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.servers = servers

    def __repr__(self) -> str:
        return f"<Cluster {','.join(self.servers)}>"

    def consumer(self, **settings: Any) -> Any:
        return AIOKafkaConsumer(bootstrap_servers=",".join(self.servers), **settings)

    def producer(self, **settings: Any) -> Any:
        made: Any = AIOKafkaProducer(bootstrap_servers=",".join(self.servers), **settings)
        made.client._metadata_update = paced(made.client._metadata_update)
        # a batch that expired would take its numbers along
        made._message_accumulator._batch_ttl = float("inf")
        return made

    def admin(self, **settings: Any) -> Any:
        return AIOKafkaAdminClient(bootstrap_servers=",".join(self.servers), **settings)

    async def open(self, client: Any) -> None:
        """Starts one of them. Raises what keeps the cluster from answering."""
        try:
            await started(client)
        except kafka.KafkaError as error:
            raise await self.explained() from error

    async def explained(self) -> Unavailable:
        """Why none of the servers let us in: the client hides it, so each is asked directly."""
        found = [f"{server}: {await _asked(server)}" for server in self.servers]
        remedy = (
            "Look whether the cluster runs, and whether this is a listener without TLS and"
            " passwords."
        )
        return Unavailable(wrong("kafka", "a server that answers", "; ".join(found), remedy))


async def _asked(server: str) -> str:
    parts = urlsplit(f"//{server}")
    try:
        async with asyncio.timeout(ANSWER):
            connection = await create_conn(
                parts.hostname, parts.port, request_timeout_ms=int(ANSWER * 1000)
            )
            try:
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        return reason(error, ANSWER)
    return "answers now"


async def started(client: Any) -> Any:
    """The client, with nothing left open where it cannot be started."""
    try:
        await client.start()
    except BaseException:  # cancelled or refused, nothing of it stays open
        await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
        raise
    return client


def paced(ask: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """The same question, with a pause between two: while a partition has no leader the client asks
    without any."""
    last = float("-inf")

    async def again(*arguments: Any) -> T:
        nonlocal last
        await asyncio.sleep(max(0.0, last + PAUSE - time.monotonic()))
        last = time.monotonic()
        return await ask(*arguments)

    return again


# --- groups ----------------------------------------------------------------------------------


def listens(kind: type[T]) -> type[T]:
    """Lets the client accept instances of this class as listeners."""
    ConsumerRebalanceListener.register(kind)
    return kind


class Membership(NamedTuple):
    """Under what a partition was assigned: both change when the group goes on without us."""

    generation: int
    member: str

    @property
    def lost(self) -> bool:
        return self.generation < 0


class Group:
    """A consumer's place in its group, as the client knows it now."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    @property
    def membership(self) -> Membership:
        coordinator = self._consumer._coordinator
        return Membership(coordinator.generation, coordinator.member_id)

    @property
    def coordinator(self) -> int | None:
        """The node that keeps the group; None where it is not known."""
        node: int | None = self._consumer._coordinator.coordinator_id
        return node

    @property
    def ended(self) -> bool:
        """Whether the client has given up its place."""
        return bool(self._consumer._coordinator._coordination_task.done())

    def check(self) -> None:
        """Raises what keeps the client out of the group."""
        self._consumer._coordinator.check_errors()

    def stay(self) -> None:
        """The client leaves the group when nobody fetches for long; not from now on."""
        self._consumer._subscription._fetch_count += 1

    def rejoin(self) -> None:
        self._consumer._coordinator.request_rejoin()

    def look_again(self) -> None:
        """Another node keeps the group."""
        self._consumer._coordinator.coordinator_dead()

    async def stored(self, places: Iterable[TopicPartition]) -> Any:
        """The position of each place for which there is one, and the text beside it."""
        return await self._consumer._coordinator.fetch_committed_offsets(places)

    async def commit(
        self, membership: Membership, topics: list[tuple[str, list[tuple[int, int, str]]]]
    ) -> Any:
        """One try, under this membership: the answer."""
        coordinator = self._consumer._coordinator
        request = OffsetCommitRequest(
            coordinator.group_id,
            *membership,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            topics,
        )
        return await coordinator._send_req(request)


# --- logs ------------------------------------------------------------------------------------


async def asked(admin: Any, request: Any, node: int | None = None) -> Any:
    """What a node answers to an admin client; any node unless it is said which."""
    if node is None:
        return await admin._send_request(request)
    return await admin._client.send(node, request)


def any_node(admin: Any) -> int:
    return int(admin._client.get_random_node())


# --- writing ---------------------------------------------------------------------------------


class Batch(BatchBuilder):  # type: ignore[misc]  # a library without types
    """The client's batch, filled by many records at a time. The client would compress all batches,
    or none."""

    _relative_offset: int

    def __init__(self, size: int, compress: bool) -> None:
        super().__init__(
            size, DefaultRecordBatch.CODEC_GZIP if compress else DefaultRecordBatch.CODEC_NONE
        )

    def fill(self, records: Iterable[Record]) -> bool:
        """Whether there was room for all of them; `record_count` says how many are in, also when
        one is raised that the client cannot write."""
        append, count = self._builder.append, self._relative_offset
        try:
            for at, key, body, headers in records:
                if append(count, at, key, body, headers) is None:
                    return False
                count += 1
        finally:
            self._relative_offset = count
        return True


def leads(producer: Any, place: TopicPartition) -> bool | None:
    """Whether a partition has a leader; None where the client does not know."""
    leader = producer._metadata.leader_for_partition(place)
    return None if leader is None else bool(leader >= 0)


async def look_for_leader(producer: Any, place: TopicPartition, seconds: float) -> None:
    """Asks the cluster who leads, and gives it so long. Raises TopicAuthorizationFailedError."""
    producer.client.add_topic(place.topic)
    await asyncio.wait((producer.client.force_metadata_update(),), timeout=seconds)
    if place.topic in producer._metadata.unauthorized_topics:
        raise kafka.TopicAuthorizationFailedError()


def renumber(producer: Any, *, anew: bool) -> None:
    """Lets every partition count from 0, in the next epoch, or if `anew`, under another id, which
    the client asks for."""
    manager = producer._txn_manager
    if not anew and NO_PRODUCER_EPOCH < manager.producer_epoch < LAST_EPOCH:
        manager._pid_and_epoch = PidAndEpoch(manager.producer_id, manager.producer_epoch + 1)
    else:
        manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
        manager._pid_waiter = asyncio.get_running_loop().create_future()  # it was told the last one
    manager._sequence_numbers.clear()


def is_dead(producer: Any) -> bool:
    """Whether the client has met what it does not expect, and sends nothing any more."""
    return bool(producer._sender.sender_task.done())


async def stopped(producer: Any, seconds: float) -> None:
    """Gives what is under way so long, then leaves it: it ends with the loop."""
    try:
        async with asyncio.timeout(seconds):
            await producer.stop()
    except TimeoutError:
        producer._sender.sender_task.cancel()
        await producer.client.close()
