"""Where a partition is read from when a member gets it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import TopicPartition

from busline.core.ports import Start
from busline.transports.kafka.ahead import Range, clipped, read
from busline.transports.kafka.cluster import Group
from busline.transports.kafka.logs import UNCOMMITTED, Logs
from busline.transports.kafka.tracker import Tracker


class Beginning(NamedTuple):
    """`offset`: what is read first. `committed`: what the group has stored, -1 for nothing.
    `deleted`: records that were gone before they were read. `cut`: records that were read, and that
    the log has lost. `ahead`: what is finished."""

    offset: int
    committed: int
    deleted: int = 0
    cut: int = 0
    ahead: Sequence[Range] = ()
    topic: bytes | None = None  # the topic's id


Stored = Mapping[TopicPartition, tuple[int, str]]  # each position, and the text beside it


class Beginnings:
    """Looked up in the group and in the logs. `fresh`: partitions on which the group was new when
    this process came; they begin as the subscription says. Any other without an offset has appeared
    since: it is read from its first."""

    def __init__(
        self, group: Group, logs: Logs, start: Start, fresh: Iterable[TopicPartition]
    ) -> None:
        self._group, self._logs = group, logs
        self._start: Start = start
        self.fresh = frozenset(fresh)

    async def stored(self, places: Sequence[TopicPartition]) -> Stored:
        """What the group has stored, for those of them for which it has."""
        found: Stored = await self._group.stored(places)
        return found

    async def of(
        self, places: Sequence[TopicPartition], stored: Stored
    ) -> dict[TopicPartition, Beginning]:
        """Of those whose leader answers."""
        first, end = await self._logs.first(places), await self._logs.end(places, UNCOMMITTED)
        starts = await self._logs.start(
            sorted(self.fresh.intersection(places) - stored.keys()), self._start
        )
        ids = await self._logs.ids({place.topic for place in places})
        found: dict[TopicPartition, Beginning] = {}
        for place in first.keys() & end.keys():
            if place in stored:
                offset, text = stored[place]
                found[place] = between(offset, read(offset, text), first[place], end[place])
            elif place in starts or place not in self.fresh:
                found[place] = Beginning(starts.get(place, first[place]), -1)
        return {place: one._replace(topic=ids.get(place.topic)) for place, one in found.items()}

    async def again(self, tracker: Tracker) -> Beginning | None:
        """Where a partition goes on, of which what was to be read next is not in its log; what is
        stored of one that goes back is not known, for a commit may be on its way. None: its leader
        does not answer."""
        assert tracker.frontier is not None
        place, at = tracker.place, tracker.frontier.next
        first, end = (
            (await self._logs.first([place])).get(place),
            (await self._logs.end([place], UNCOMMITTED)).get(place),
        )
        topic = (await self._logs.ids([place.topic])).get(place.topic)
        if first is None or end is None:
            return None
        if topic != tracker.topic or (topic is None and at > end):
            return Beginning(first, -1, topic=topic)
        if at <= end:
            return Beginning(max(at, first), tracker.committed, max(first - at, 0), topic=topic)
        low = min(tracker.low, end)
        return Beginning(
            low, -1, cut=at - end, ahead=clipped(tracker.finished, low, end), topic=topic
        )


def between(committed: int, ahead: Sequence[Range], first: int, end: int) -> Beginning:
    """Where a group goes on in a log that begins and ends there. What finished at offsets that the
    log does not have any more says nothing of the records that will stand there."""
    if committed > end:
        return Beginning(end, committed, cut=committed - end)
    offset = max(committed, first)
    deleted = (
        offset - committed - sum(upto - begin for begin, upto in clipped(ahead, committed, offset))
    )
    return Beginning(offset, committed, deleted, ahead=clipped(ahead, offset, end))
