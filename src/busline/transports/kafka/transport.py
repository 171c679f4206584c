"""Streams on Kafka."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Self

from aiokafka import TopicPartition

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock
from busline.core.errors import Invalid, Unavailable, wrong
from busline.core.message import Message
from busline.core.partition import partition
from busline.core.ports import Features, Host, Receiver, Store, Subscription
from busline.transports.kafka.admin import Admin, Known
from busline.transports.kafka.carrier import Carrier
from busline.transports.kafka.diagnosis import told, within
from busline.transports.kafka.inspector import KafkaInspector
from busline.transports.kafka.letter import topic_for
from busline.transports.kafka.letters import Letters
from busline.transports.kafka.logs import UNCOMMITTED
from busline.transports.kafka.member import Limits, Member
from busline.transports.kafka.producer import Producer
from busline.transports.kafka.reader import Reader
from busline.transports.kafka.tracker import SPAN
from busline.transports.kafka.url import servers
from busline.transports.kafka.wire import Record, check_sizes, written

log = logging.getLogger("busline")


class KafkaTransport:
    """Topics of a cluster. `session`: seconds after which a silent member's partitions go to
    others. `drain`: seconds for which a member finishes what it has in hand before its partitions
    move. `patience`: seconds for which a publish waits for its confirmation: a broker that crashes
    is replaced within about twelve. `span`: how many records of a partition may be handed out
    behind one that is not finished."""

    features = Features(topics=True, queues=False, durable=True, atomic=False, notes=True)
    system = "kafka"

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        create_topics: bool = False,
        session: float = 30.0,
        drain: float = 10.0,
        patience: float = 30.0,
        span: int = SPAN,
    ) -> None:
        self.servers = servers(url)
        self.clock: Clock = clock or SystemClock()
        self._limits = Limits(session, drain, patience, span)
        self._create, self._patience = create_topics, patience
        self._turn = count()

    def __repr__(self) -> str:
        return f"<KafkaTransport {','.join(self.servers)}>"

    @property
    def server(self) -> tuple[str, int]:
        """The first of those that were named."""
        host, _, port = self.servers[0].rpartition(":")
        return host, int(port)

    @property
    def store(self) -> Store:
        raise Invalid(
            wrong(
                "store",
                "an engine that keeps facts",
                "Kafka, which keeps none",
                "Name a jobs engine: BUSLINE_JOBS.",
            )
        )

    async def __aenter__(self) -> Self:
        self.admin = Admin(self.servers, self._create)
        await self.admin.open()
        self.producer = Producer(self.servers)
        self.letters = Letters(self.admin, self.producer, self.servers, self.clock, self._patience)
        self.inspector = KafkaInspector(self.admin, self.letters)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.producer.close()
        await self.admin.close()

    # --- publishing --------------------------------------------------------------------------

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        if address.kind == "queue":
            raise Invalid(
                wrong(
                    address.name,
                    "a topic",
                    "a queue, which Kafka does not keep",
                    "Name a jobs engine: BUSLINE_JOBS.",
                )
            )
        if not messages:
            await self.admin.check(address)
        else:
            await self._publish(address, messages)
        return {}

    async def _publish(self, address: Address, messages: Sequence[Message]) -> None:
        confirmed: set[int] = set()
        places: list[int] = []
        try:
            async with within(address.name, self._patience):
                topic = await self._known(address)
                places += self._places(address.name, messages, topic)
                await self._write(address.name, messages, places, topic, confirmed)
        except Unavailable as error:
            error.confirmed = frozenset(
                index for index, part in enumerate(places) if part in confirmed
            )
            raise

    async def send(self, address: Address, messages: Sequence[Message]) -> None:
        """As `publish`, however long it takes. Raises Invalid only for what lies in the
        messages."""
        topic = await self._known(address)
        await self._write(
            address.name, messages, self._places(address.name, messages, topic), topic, set()
        )

    async def _known(self, address: Address) -> Known:
        topic = await self.admin.topic(address)
        await self.producer.open()
        return topic

    async def _write(
        self,
        name: str,
        messages: Sequence[Message],
        places: Sequence[int],
        topic: Known,
        confirmed: set[int],
    ) -> None:
        placed: dict[int, list[Record]] = {}
        for message, part in zip(messages, places, strict=True):
            if part in placed:
                placed[part].append(written(message))
            else:
                placed[part] = [written(message)]
        check_sizes(name, placed, topic.limit)
        await self.producer.write(name, placed, confirmed=confirmed)

    def _places(self, name: str, messages: Sequence[Message], topic: Known) -> list[int]:
        """The partition of each: as Kafka's own client places a key, those without one by turns."""
        return [
            self._next(name, topic) if message.key is None else partition(message.key, topic.parts)
            for message in messages
        ]

    def _next(self, name: str, topic: Known) -> int:
        """The next partition that has a leader; any if none has."""
        part = next(self._turn) % topic.parts
        for _ in range(topic.parts):
            leads = self.producer.leads(name, part)
            if leads or (leads is None and part in topic.led):
                break
            part = next(self._turn) % topic.parts
        return part

    # --- receiving ---------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        if subscription.group is None:
            raise Invalid(
                wrong(
                    subscription.addresses[0].name,
                    "a topic",
                    "a queue, which Kafka does not keep",
                    "Name a jobs engine: BUSLINE_JOBS.",
                )
            )
        fresh = {
            topic: places
            for topic in subscription.addresses
            if (places := await self._fresh(subscription.group, topic))
        }
        member = Member(
            self.servers,
            self.admin,
            subscription,
            host,
            self._limits,
            [one for places in fresh.values() for one in places],
        )
        await member.join()
        reader = Reader(member, subscription, Carrier(subscription.group, self.letters, self.send))
        try:
            await reader.placed()
            for topic in fresh:
                await self._greet(subscription.group, topic.name, fresh[topic])
            yield reader
        finally:
            await reader.leave()

    async def _fresh(self, group: str, address: Address) -> list[TopicPartition]:
        """The partitions of a topic that is new to a group; none where it is known."""
        topic_for(group, address.name)
        await self.admin.check(address)
        with told(address.name):
            places = sorted(await self.admin.logs.leaders([address.name]))
            return [] if await self.admin.offsets(group, places) else places

    async def _greet(self, group: str, topic: str, places: Sequence[TopicPartition]) -> None:
        with told(topic):
            stands, ends = (
                await self.admin.offsets(group, places),
                await self.admin.logs.end(places, UNCOMMITTED),
            )
        count = sum(ends[place] - offset for place, offset in stands.items() if place in ends)
        log.info("%s is new on %s: it has %d records to read", group, topic, count)
