"""What is asked of a cluster besides records: its topics, its groups' offsets, where logs begin and
end."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

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
FRESH = 30.0  # seconds for which it is believed what a topic is like
SETTLED = 10.0  # seconds a new topic may take to be known everywhere
LIMIT = "max.message.bytes"
EXTRA = 64 * 1024  # bytes, for what is noted beside a record that died
NOTHING: Mapping[str, str] = MappingProxyType({})
EXISTS = 36


class Known(NamedTuple):
    """A topic, as it was when we looked: which of its partitions had a leader, how many bytes a
    batch may have."""

    parts: int
    led: frozenset[int]
    limit: int | None
    looked: float


class Admin:
    """One client, and what it is asked. `logs`: where partitions begin and end."""

    def __init__(self, servers: Sequence[str], create_topics: bool) -> None:
        self._servers, self._create = servers, create_topics
        self._client = client.admin(servers, request_timeout_ms=10_000, metadata_max_age_ms=30_000)
        self.logs = Logs(self._client)
        self._turns = defaultdict[str, Turn](Turn)
        self._known: dict[str, Known] = {}
        self._told: set[Address] = set()  # who is not as it was declared

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

    # --- topics ------------------------------------------------------------------------------

    async def topic(self, address: Address) -> "Known":
        """What is known of it; made first, where that was asked for. Raises Unavailable where there
        is none."""
        # always: callers keep their order
        return await self._turns[address.name].take(lambda: self._looked(address))

    async def check(self, address: Address) -> None:
        """Also raises Invalid where a topic has another number of partitions than was declared.
        Asked at start only."""
        known = await self.topic(address)
        if address.partitions not in (None, known.parts):
            raise Invalid(differs(address, known.parts))

    async def _looked(self, address: Address) -> "Known":
        known = self._known.get(address.name)
        if known is None or time.monotonic() - known.looked > FRESH:
            with told(address.name):
                known = await patiently(lambda: self._look(address))
            if known.parts != address.partitions is not None and address not in self._told:
                self._told.add(address)
                log.warning("%s", differs(address, known.parts))
            self._known[address.name] = known
        return known

    async def _look(self, address: Address) -> "Known":
        parts = await self._parts(address.name)
        if parts is None and self._create:
            await self.create(address)
            parts = await self._parts(address.name)
        if parts is None:
            remedy = "Create it with Kafka's own tools, or let busline do it: --create-topics."
            raise Unavailable(wrong(address.name, "a topic of this name", "none", remedy))
        if not leaders(parts):
            raise kafka.LeaderNotAvailableError(address.name)
        return Known(len(parts), leaders(parts), await self.limit(address.name), time.monotonic())

    async def limit(self, topic: str) -> int | None:
        """How many bytes a batch may have there; None where we may not know."""
        found = await self._settings(ConfigResourceType.TOPIC, topic, LIMIT)
        return int(found[LIMIT]) if LIMIT in found else None

    async def _parts(self, topic: str) -> Sequence[Any] | None:
        """What is known of its partitions, also of those that have no leader now; None where there
        is no such topic."""
        (found,) = await self._client.describe_topics([topic])
        error = kafka.for_code(found["error_code"])
        if error is kafka.UnknownTopicOrPartitionError:
            return None
        if error not in (kafka.NoError, kafka.LeaderNotAvailableError):
            raise error(topic)
        return list(found["partitions"])

    async def ensure(self, address: Address, like: str) -> None:
        """Makes a topic, unless there is one, for records a little larger than those of another."""
        if await self._parts(address.name) is None:
            limit = await self.limit(like)
            await self.create(address, {} if limit is None else {LIMIT: str(limit + EXTRA)})

    async def create(self, address: Address, more: Mapping[str, str] = NOTHING) -> None:
        """Makes a topic, unless there is one. The cluster's own settings say what is left out."""
        topic, (default, copies) = address.name, await self._defaults()
        new = NewTopic(
            topic,
            address.partitions or default,
            copies,
            topic_configs={**settings(address), **more},
        )
        answer = await self._client.create_topics([new])
        code, text = answer.topic_errors[0][1:3]
        if code not in (0, EXISTS):
            raise translated(topic, kafka.for_code(code)(text))
        if code == 0:
            log.info("created the topic %s", topic)
        async with asyncio.timeout(SETTLED):
            while len(leaders(parts := await self._parts(topic) or ())) < max(1, len(parts)):
                await asyncio.sleep(0.02)

    async def _defaults(self) -> tuple[int, int]:
        """How many partitions, and how many copies of each, the cluster gives a topic that does not
        say."""
        node = str(self._client._client.get_random_node())
        found = await self._settings(
            ConfigResourceType.BROKER, node, "num.partitions", "default.replication.factor"
        )
        return int(found["num.partitions"]), int(found["default.replication.factor"])

    async def _settings(self, kind: ConfigResourceType, name: str, *wanted: str) -> dict[str, str]:
        """Those of them that we may know."""
        (answer,) = await self._client.describe_configs(
            [ConfigResource(kind, name, dict.fromkeys(wanted))]
        )
        return {one[0]: one[1] for one in answer.resources[0][4]}

    async def topics(self) -> list[str]:
        return list(await self._client.list_topics())

    # --- groups ------------------------------------------------------------------------------

    async def groups(self) -> list[str]:
        return sorted(
            name
            for name, kind, *_ in await patiently(self._client.list_consumer_groups)
            if kind in ("consumer", "")
        )

    async def members(self, group: str) -> int:
        """How many processes read for a group now."""
        (found,) = [
            one
            for answer in await self._client.describe_consumer_groups([group])
            for one in answer.groups
        ]
        return len(found[-1])

    async def offsets(
        self, group: str, places: Sequence[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Where a group stands; partitions for which it stands nowhere are left out."""
        wanted = list(places) if places else None
        found = await patiently(
            lambda: self._client.list_consumer_group_offsets(group, partitions=wanted)
        )
        return {place: one.offset for place, one in found.items() if one.offset >= 0}

    async def end(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where each of these logs ends. Raises LeaderNotAvailableError where one does not say
        so."""
        return await patiently(lambda: self._end(places))

    async def _end(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        found = await self.logs.end(places)
        if missing := [place for place in places if place not in found]:
            raise kafka.LeaderNotAvailableError(missing)
        return found


def leaders(parts: Sequence[Any]) -> frozenset[int]:
    """The partitions that have a leader."""
    return frozenset(one["partition"] for one in parts if one["leader"] >= 0)


def differs(address: Address, parts: int) -> str:
    remedy = "Correct the declaration, or give the topic more with Kafka's own tools."
    return wrong(
        address.name, f"partitions={parts}, as the topic has", f"{address.partitions}", remedy
    )


def settings(address: Address) -> dict[str, str]:
    """What a topic's declaration asks for, in Kafka's words."""
    kept = (
        {} if address.retention is None else {"retention.ms": str(round(address.retention * 1000))}
    )
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
