"""Looks at groups and dead letters."""

from collections.abc import Collection, Container, Mapping, Sequence, Set

from aiokafka import TopicPartition
from aiokafka import errors as kafka

from busline.core.address import Address
from busline.core.counts import Counts, Whose
from busline.core.errors import Invalid, wrong
from busline.core.message import DeadLetter, Delivery
from busline.core.ports import Depth, Lag, Look, Redriven, Standing, together
from busline.core.served import Served
from busline.transports.kafka.admin import Admin
from busline.transports.kafka.diagnosis import told
from busline.transports.kafka.letters import Letters
from busline.transports.kafka.logs import UNCOMMITTED
from busline.transports.kafka.wire import message


class KafkaInspector:
    """Kafka keeps neither jobs nor counts."""

    def __init__(self, admin: Admin, letters: Letters) -> None:
        self._admin, self._letters = admin, letters
        # where the last page ended, should that letter be gone by the next
        self._last: dict[str, float] = {}

    async def look(self, id: str) -> Look:
        return Look("unknown")

    async def depth(self) -> Mapping[str, Depth]:
        return {}

    async def partitions(self, topic: str) -> int:
        with told(topic):
            return len(await self._admin.logs.leaders([topic]))

    async def counts(self) -> Mapping[Whose, Counts]:
        return {}

    async def peek(self, address: Address, limit: int) -> Sequence[Delivery]:
        if address.kind == "queue":
            return []
        records = await self._letters.log.last(address.name, limit)
        positions = [(f"{one.topic}/{one.partition}@{one.offset}", one) for one in records]
        return [
            Delivery(message(one, one.key, position), one.topic, 1, position, None, None)
            for position, one in positions
        ]

    async def clear(self, queue: str) -> int:
        return 0

    async def lag(self, groups: Sequence[str] | None = None) -> Sequence[Lag]:
        """As Kafka's own tool counts it: from what is committed to the end, and what an open
        transaction holds back counts. Raises Unavailable while a partition of these groups has no
        leader; of all, such a one is left out."""
        with told("lag"):
            wanted = await self._admin.groups() if groups is None else groups
            offsets = {
                group: found for group in wanted if (found := await self._admin.offsets(group))
            }
            places = {place for found in offsets.values() for place in found}
            ends = await self._admin.logs.end(places, UNCOMMITTED)
            if groups is not None:
                await self._check(places - ends.keys())
            members = {group: await self._admin.members(group) for group in offsets}
        return [
            Lag(group, topic, behind, sum(place.topic == topic for place in found), members[group])
            for group, found in offsets.items()
            for topic, behind in _behind(found, ends).items()
        ]

    async def _check(self, silent: Set[TopicPartition]) -> None:
        """Raises what keeps these from answering, but for those that are no longer there."""
        if silent and (
            there := silent
            & (await self._admin.logs.leaders({place.topic for place in silent})).keys()
        ):
            raise kafka.LeaderNotAvailableError(sorted(there))

    async def dead(
        self,
        *,
        served: Container[Served] | None = None,
        handlers: Collection[str] | None = None,
        id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[DeadLetter]:
        slots = await self._letters.standing(served) if id is None else await self._letters.find(id)
        if after:
            ids = [one.id for one in slots]
            slots = (
                slots[ids.index(after) + 1 :]
                if after in ids
                else [one for one in slots if one.died_at >= self._last.get(after, 0.0)]
            )
        page = [one for one in slots if handlers is None or one.handler in handlers][:limit]
        if page:
            self._last = {page[-1].id: page[-1].died_at}
        return await self._letters.whole(page)

    async def standing(self, served: Container[Served] | None = None) -> Sequence[Standing]:
        return together(
            Standing(one.served, one.handler, 1, one.died_at, one.died_at)
            for one in await self._letters.standing(served)
        )

    async def redrive(self, ids: Sequence[str], handler: str | None = None) -> Redriven:
        raise Invalid(
            wrong(
                "redrive",
                "an engine with queues, where dead records run again",
                "Kafka",
                "Name a jobs engine: BUSLINE_JOBS.",
            )
        )

    async def mend(self, id: str, body: bytes) -> bool:
        return await self._letters.mend(id, body)

    async def purge(self, ids: Sequence[str]) -> int:
        return await self._letters.purge(ids)


def _behind(
    offsets: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[str, int]:
    behind: dict[str, int] = {}
    for place, offset in offsets.items():
        if place in ends:
            behind[place[0]] = behind.get(place[0], 0) + max(0, ends[place] - offset)
    return behind
