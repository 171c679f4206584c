"""What is asked of a cluster besides records: its topics, its groups' offsets, where logs begin and end."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from busline.core.address import Address
from busline.core.errors import Invalid, Unavailable, wrong
from busline.transports.kafka import client
from busline.transports.kafka.diagnosis import explain, told, translated
from busline.transports.kafka.logs import Logs
from busline.transports.kafka.turn import Turn

T = TypeVar("T")
log = logging.getLogger("busline")
FRESH = 30.0  # seconds for which a topic's number of partitions is believed
SETTLED = 10.0  # seconds a new topic may take to be known everywhere
EXISTS = 36


class Admin:
    """One client, and what it is asked. `logs`: where partitions begin and end."""

    def __init__(self, servers: Sequence[str], create_topics: bool) -> None:
        self._servers, self._create = servers, create_topics
        self._client = client.admin(servers, request_timeout_ms=10_000, metadata_max_age_ms=30_000)
        self.logs = Logs(self._client)
        self._turns = defaultdict[str, Turn](Turn)
        self._known: dict[str, tuple[int, float]] = {}

    async def open(self) -> None:
        """Raises what keeps the cluster from answering."""
        try:
            await self._client.start()
        except BaseException as error:  # cancelled or refused, nothing of it stays open
            await self._client.close()
            if isinstance(error, kafka.KafkaError):
                raise await explain(self._servers) from error
            raise

    async def close(self) -> None:
        await self._client.close()

    # --- topics --------------------------------------------------------------------------------------------

    async def partitions(self, address: Address) -> int:
        """How many a topic has; made first, where that was asked for. Raises Unavailable where there is none."""
        count = await self._turns[address.name].take(lambda: self._known_count(address))  # always: callers keep their order
        if address.partitions not in (None, count):
            remedy = "Correct the declaration, or give the topic more with Kafka's own tools."
            raise Invalid(wrong(address.name, f"partitions={count}, as the topic has", f"{address.partitions}", remedy))
        return count

    async def _known_count(self, address: Address) -> int:
        count, looked = self._known.get(address.name, (0, 0.0))
        if not count or time.monotonic() - looked > FRESH:
            with told(address.name):
                count = await patiently(lambda: self._count(address))
            self._known[address.name] = count, time.monotonic()
        return count

    async def _count(self, address: Address) -> int:
        parts = await self._parts(address.name)
        if parts is None and self._create:
            await self.create(address)
            parts = await self._parts(address.name)
        if parts is None:
            remedy = "Create it with Kafka's own tools, or let busline do it: --create-topics."
            raise Unavailable(wrong(address.name, "a topic of this name", "none", remedy))
        if not any(map(_led, parts)):
            raise kafka.LeaderNotAvailableError(address.name)
        return len(parts)

    async def _parts(self, topic: str) -> Sequence[Any] | None:
        """What is known of its partitions, also of those that have no leader now; None where there is no such topic."""
        (found,) = await self._client.describe_topics([topic])
        error = kafka.for_code(found["error_code"])
        if error is kafka.UnknownTopicOrPartitionError:
            return None
        if error not in (kafka.NoError, kafka.LeaderNotAvailableError):
            raise error(topic)
        return list(found["partitions"])

    async def create(self, address: Address) -> None:
        """Makes a topic, unless there is one. The cluster's own settings say what is left out."""
        topic, (default, copies) = address.name, await self._defaults()
        new = NewTopic(topic, address.partitions or default, copies, topic_configs=settings(address))
        answer = await self._client.create_topics([new])
        code, text = answer.topic_errors[0][1:3]
        if code not in (0, EXISTS):
            raise translated(topic, kafka.for_code(code)(text))
        if code == 0:
            log.info("created the topic %s", topic)
        async with asyncio.timeout(SETTLED):
            while not (parts := await self._parts(topic)) or not all(map(_led, parts)):
                await asyncio.sleep(0.02)

    async def _defaults(self) -> tuple[int, int]:
        """How many partitions, and how many copies of each, the cluster gives a topic that does not say."""
        node = str(self._client._client.get_random_node())
        wanted = {"num.partitions": None, "default.replication.factor": None}
        (answer,) = await self._client.describe_configs([ConfigResource(ConfigResourceType.BROKER, node, wanted)])
        found = {one[0]: one[1] for one in answer.resources[0][4]}
        return int(found["num.partitions"]), int(found["default.replication.factor"])

    async def topics(self) -> list[str]:
        return list(await self._client.list_topics())

    async def places(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, one["partition"]) for one in await self._parts(topic) or ()]

    # --- groups --------------------------------------------------------------------------------------------

    async def groups(self) -> list[str]:
        return sorted(name for name, kind, *_ in await patiently(self._client.list_consumer_groups) if kind in ("consumer", ""))

    async def members(self, group: str) -> int:
        """How many processes read for a group now."""
        (found,) = [one for answer in await self._client.describe_consumer_groups([group]) for one in answer.groups]
        return len(found[-1])

    async def offsets(self, group: str, places: Sequence[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """Where a group stands; partitions for which it stands nowhere are left out."""
        wanted = list(places) if places else None
        found = await patiently(lambda: self._client.list_consumer_group_offsets(group, partitions=wanted))
        return {place: one.offset for place, one in found.items() if one.offset >= 0}

    async def end(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where each of these logs ends. Raises LeaderNotAvailableError where one does not say so."""
        return await patiently(lambda: self._end(places))

    async def _end(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        found = await self.logs.end(places)
        if missing := [place for place in places if place not in found]:
            raise kafka.LeaderNotAvailableError(missing)
        return found


def _led(part: Mapping[str, Any]) -> bool:
    return bool(part["leader"] >= 0)


def settings(address: Address) -> dict[str, str]:
    """What a topic's declaration asks for, in Kafka's words."""
    kept = {} if address.retention is None else {"retention.ms": str(round(address.retention * 1000))}
    return kept | ({"cleanup.policy": "compact"} if address.compact else {})


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks again while the cluster is not ready to answer, ten seconds at most."""
    end = time.monotonic() + SETTLED
    while True:
        try:
            return await ask()
        except kafka.KafkaError as error:
            if not error.retriable or time.monotonic() > end:
                raise
        await asyncio.sleep(0.1)
