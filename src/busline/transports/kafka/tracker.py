"""One partition from its assignment to the next: what is handed out, given back, finished. No I/O.

States: not begun (`frontier` is None), read, astray or failed (nothing more is read), over. Its
member and its reader call it, each in one step. After each call what is open in the frontier is
held, or given back and waits to be handed out again."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from busline.core.frontier import Frontier
from busline.core.lanes import lane
from busline.core.message import Delivery
from busline.core.ports import BATCH_BYTES, Order
from busline.transports.kafka import ahead
from busline.transports.kafka.arrival import Arrival

SPAN = 10_000
LARGE = 64 * 1024  # bytes: as many of this size are read at once as fit, until a larger one comes


class Commit(NamedTuple):
    """How far a partition is. `text`: what finished beyond; `whole`: whether all of it is in
    there."""

    offset: int
    text: str
    whole: bool
    moves: int


class Tracker:
    """Made at an assignment, and of no use after it: what finishes later finds it over. `span`: how
    many records may be handed out behind one that is not finished."""

    __slots__ = (
        "_again", "_confirmed", "_earlier", "_largest", "_moves", "_order", "_span", "_stuck",
        "astray", "committed", "failure", "frontier",
        "full", "held", "name", "over", "place", "source", "topic",
    )  # fmt: skip

    def __init__(self, place: TopicPartition, order: Order, span: int = SPAN) -> None:
        self.place, self.name = place, f"{place.topic}/{place.partition}"
        self._order: Order = order
        self._span = span
        # what finished in an earlier life and was not come to yet
        self._earlier: list[ahead.Range] = []
        self._largest = LARGE  # bytes of the largest body so far
        self._moves = self._confirmed = (
            0  # how often something finished; and how often until the last confirmed commit
        )
        self.full = False  # what finished beyond no longer fits beside the position
        self.frontier: Frontier | None = None  # None until it is known where to begin
        self.committed = -1
        self.held: dict[int, Arrival] = {}
        self.source: Any = None  # records that were fetched and not yet read
        self._again: list[Arrival] = []  # given back, to be handed out before anything else
        self.astray = False  # what was to be read next is not there
        self.failure: Exception | None = None  # why what comes next cannot be read
        self.over = False
        self.topic: bytes | None = None
        # what these carry is not confirmed: nothing more is handed out
        self._stuck: set[int] = set()

    def __repr__(self) -> str:
        return (
            f"<Tracker {self.place.topic}/{self.place.partition}: {self.frontier}, {len(self.held)}"
            " held>"
        )

    def begin(
        self,
        offset: int,
        committed: int,
        earlier: Iterable[ahead.Range] = (),
        topic: bytes | None = None,
    ) -> None:
        """`earlier`: what is finished behind it. `topic`: the id of the topic that it belongs
        to."""
        self.frontier = Frontier(offset)
        self.committed, self.topic = committed, topic
        self._earlier = list(earlier)

    def go_on_at(self, offset: int) -> None:
        """What is read next. Where that is further than before, the rest is gone."""
        assert self.frontier is not None
        self.astray = False
        self.frontier.hand_out([], offset)

    def room(self, unfinished: int) -> int:
        """How many more may be handed out, so that no more than so many are unfinished."""
        if self.frontier is None or self._stuck:
            return 0
        most, here = min(unfinished, self._span), self.frontier.unfinished
        room = min(unfinished - here, self._span - here - len(self.frontier.ahead))
        if self.full or (self._order == "partition" and room < most // 4):
            room = 0  # a handful out of one lane is not worth the way
        return len(self._again) + max(0, room)

    @property
    def far(self) -> bool:
        """Whether it is as far beyond its lowest unfinished record as it may be."""
        return self.frontier is not None and (
            self.full or self.frontier.unfinished + len(self.frontier.ahead) >= self._span
        )

    @property
    def low(self) -> int:
        """Below it everything is finished; -1 as long as it is not known where to begin."""
        return -1 if self.frontier is None else self.frontier.with_finished(())

    @property
    def reads(self) -> bool:
        """Whether it wants what is fetched next."""
        return (
            self.frontier is not None
            and self.source is None
            and not self.astray
            and self.failure is None
        )

    @property
    def waiting(self) -> bool:
        """Whether something is there to be handed out."""
        return (self.source is not None and self.failure is None) or bool(self._again)

    def take(self, limit: int, size: int = BATCH_BYTES, *, alone: bool = True) -> list[Arrival]:
        """The next ones, at most `limit` and `size` bytes of them: first what was given back, then
        what was fetched. `alone`: the first one comes, however large."""
        taken = self._again[:limit]
        del self._again[: len(taken)]
        left = size - sum([one._size for one in taken]) if taken else size
        while self.source is not None and self.failure is None and len(taken) < limit and left > 0:
            read = self._read(min(limit - len(taken), max(1, left // self._largest)))
            left -= sum([one._size for one in read])
            taken += read
        fits = len(taken) if left >= 0 else _fitting(taken, size, alone)
        self._again[:0] = taken[fits:]
        del taken[fits:]
        held = self.held
        for one in taken:
            held[one.receipt[1]] = one
        return taken

    def _read(self, limit: int) -> list[Arrival]:
        assert self.frontier is not None
        source = self.source
        records: list[Any] = []
        try:
            records.extend(islice(source, limit))
        # whatever the client's parser raises: what came before it is good
        except Exception as error:
            self.failure = error
        if len(records) < limit and self.failure is None:
            self.source = None
        self._largest = max([self._largest, *[len(one.value or b"") for one in records]])
        # behind the last record there may be some that are not for readers: transactions' ends,
        # what was compacted away
        self.frontier.hand_out([record.offset for record in records], source.next_fetch_offset)
        return self._deliveries(self._unfinished(records) if self._earlier else records)

    def _unfinished(self, records: Sequence[Any]) -> list[Any]:
        """Those that did not finish in an earlier life."""
        assert self.frontier is not None
        done = [one.offset for one in records if ahead.within(one.offset, self._earlier)]
        if done:
            self.frontier.finish(done)
        self._earlier = ahead.clipped(self._earlier, self.frontier.next, self._earlier[-1][1])
        finished = set(done)
        return [one for one in records if one.offset not in finished]

    def _deliveries(self, records: Iterable[Any]) -> list[Arrival]:
        topic, order = self.place.topic, self._order
        if order == "key":
            return [
                Arrival(one, topic, lane(order, self, one.key), (self, one.offset))
                for one in records
            ]
        one_lane = lane(order, self, None)
        return [Arrival(one, topic, one_lane, (self, one.offset)) for one in records]

    def holds(self, delivery: Delivery) -> bool:
        return delivery.receipt[1] in self.held

    def give_back(self, deliveries: Iterable[Arrival]) -> None:
        """They are handed out again, as if for the first time."""
        for one in deliveries:
            self.held.pop(one.receipt[1], None)
            self._stuck.discard(one.receipt[1])
            self._again.append(one.fresh())
        self._again.sort(key=_offset)

    def finish(self, offsets: list[int]) -> None:
        assert self.frontier is not None
        for offset in offsets:
            self.held.pop(offset, None)
        self._stuck.difference_update(offsets)
        self.frontier.finish(offsets)
        self._moves += 1

    # --- committing --------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether more is finished than is committed."""
        if self.over or self.frontier is None:
            return False
        return self.low != self.committed or (
            self._moves != self._confirmed and bool(self.frontier.ahead)
        )

    @property
    def finished(self) -> list[ahead.Range]:
        """What is finished behind `low`."""
        assert self.frontier is not None
        upto = self.frontier.next
        return ahead.between(self.low, self.frontier.open, upto) + ahead.clipped(
            self._earlier, upto, self._earlier[-1][1] if self._earlier else upto
        )

    def commit(self, limit: int) -> Commit:
        """What is to be committed now, with a text of `limit` bytes at most."""
        low = self.low
        return Commit(low, *ahead.written(low, self.finished, limit), self._moves)

    def confirm(self, commit: Commit) -> None:
        """This one is committed."""
        self.committed, self._confirmed, self.full = commit.offset, commit.moves, not commit.whole

    # --- what cannot be confirmed now --------------------------------------------------------

    def stop(self, delivery: Delivery) -> None:
        """Until this one is finished nothing more is handed out."""
        self._stuck.add(delivery.receipt[1])

    def end(self) -> list[Delivery]:
        """From now on it is not ours. Returns what was in hand."""
        self.over, self.source = True, None
        gone = list[Delivery](self.held.values())
        self.held.clear()
        self._again.clear()
        return gone


def _offset(delivery: Delivery) -> int:
    offset: int = delivery.receipt[1]
    return offset


def _fitting(deliveries: Sequence[Delivery], size: int, alone: bool) -> int:
    """How many of them are no larger than this together."""
    for count, one in enumerate(deliveries):
        size -= one._size
        if size < 0 and (count or not alone):
            return count
    return len(deliveries)
