"""Where logs begin and end: each partition's leader is asked, and a partition without one keeps no
other from answering."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.protocol.offset import OffsetRequest

from busline.core.ports import Start
from busline.transports.kafka import topic_ids
from busline.transports.kafka.cluster import asked

EARLIEST, LATEST = -2, -1
NOBODY = -1
ANSWER = 4.0  # seconds a leader has to answer
UNCOMMITTED, COMMITTED = 0, 1  # what counts as the end: behind an open transaction, or before it
PASSING = (kafka.NoError, kafka.UnknownTopicOrPartitionError, kafka.LeaderNotAvailableError)
Offsets = dict[TopicPartition, int]


class Logs:
    """What the leaders say of their logs. `client`: the admin client, open."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def leaders(self, topics: Iterable[str]) -> Offsets:
        """The node that leads each partition; -1 where none does. Topics that are not there are
        left out."""
        found = await self._client.describe_topics(sorted(topics))
        for topic in found:
            if (error := kafka.for_code(topic["error_code"])) not in PASSING:
                raise error(topic["topic"])
        return {
            TopicPartition(topic["topic"], one["partition"]): one["leader"]
            for topic in found
            for one in topic["partitions"]
        }

    async def ids(self, topics: Iterable[str]) -> dict[str, bytes]:
        """What tells each topic from another of its name; left out where it is not there, or the
        cluster does not say."""
        try:
            return topic_ids.of(
                await asked(self._client, topic_ids.MetadataRequest(sorted(topics)))
            )
        except NotImplementedError:  # an older server
            return {}

    async def first(self, places: Iterable[TopicPartition]) -> Offsets:
        return await self._ask(dict.fromkeys(places, EARLIEST))

    async def end(self, places: Iterable[TopicPartition], isolation: int = COMMITTED) -> Offsets:
        return await self._ask(dict.fromkeys(places, LATEST), isolation)

    async def start(self, places: Sequence[TopicPartition], start: Start) -> Offsets:
        """Where a new group begins to read."""
        if start == "earliest":
            return await self.first(places)
        if start == "latest":
            return await self.end(places)
        found = await self._ask(dict.fromkeys(places, int(start * 1000)))
        return found | await self.end([place for place, offset in found.items() if offset < 0])

    async def _ask(
        self, wanted: Mapping[TopicPartition, int], isolation: int = COMMITTED
    ) -> Offsets:
        """The offset at each place, of those whose leader answers."""
        leaders = await self.leaders({place.topic for place in wanted})
        nodes = defaultdict[int, defaultdict[str, list[tuple[int, int]]]](lambda: defaultdict(list))
        for (topic, part), at in wanted.items():
            if (node := leaders.get(TopicPartition(topic, part), NOBODY)) != NOBODY:
                nodes[node][topic].append((part, at))
        requests = {
            node: OffsetRequest(-1, isolation, list(topics.items()))
            for node, topics in nodes.items()
        }
        answers = await asyncio.gather(
            *(self._send(node, request) for node, request in requests.items())
        )
        return {place: offset for found in answers for place, offset in found.items()}

    async def _send(self, node: int, request: OffsetRequest) -> Offsets:
        try:
            async with asyncio.timeout(ANSWER):
                answer = await asked(self._client, request, node)
        except (kafka.KafkaError, OSError, TimeoutError):
            return {}
        return {
            TopicPartition(topic, part): offset
            for topic, parts in answer.topics
            for part, code, _, offset in parts
            if code == 0
        }
