"""One partition from its assignment to the next: what is handed out, given back, finished. No I/O."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from aiokafka import TopicPartition

from busline.core.frontier import Frontier
from busline.core.message import Delivery
from busline.core.ports import Order
from busline.transports.kafka import wire


class Tracker:
    """Made at an assignment, and of no use after it: what finishes later finds it over."""

    __slots__ = ("_again", "_order", "_stuck", "astray", "committed", "frontier", "held", "over", "place", "source")

    def __init__(self, place: TopicPartition, order: Order) -> None:
        self.place = place
        self._order = order
        self.frontier: Frontier | None = None  # None until it is known where to begin
        self.committed = -1
        self.held: dict[int, Delivery] = {}
        self.source: Any = None  # records that were fetched and not yet read
        self._again: list[Delivery] = []  # given back, to be handed out before anything else
        self.astray = False  # what was to be read next is not there
        self.over = False
        self._stuck: set[int] = set()  # what these carry is not confirmed: nothing more is handed out

    def __repr__(self) -> str:
        return f"<Tracker {self.place.topic}/{self.place.partition}: {self.frontier}, {len(self.held)} held>"

    def begin(self, offset: int, committed: int) -> None:
        self.frontier = Frontier(offset)
        self.committed = committed

    def go_on_at(self, offset: int) -> None:
        """What is read next. Where that is further than before, the rest is gone."""
        assert self.frontier is not None
        self.astray = False
        self.frontier.hand_out([], offset)

    def room(self, ahead: int) -> int:
        """How many more may be handed out."""
        if self.frontier is None or self._stuck:
            return 0
        return len(self._again) + max(0, ahead - self.frontier.unfinished)

    @property
    def low(self) -> int:
        """Below it everything is finished; -1 as long as it is not known where to begin."""
        return -1 if self.frontier is None else self.frontier.with_finished(())

    @property
    def reads(self) -> bool:
        """Whether it wants what is fetched next."""
        return self.frontier is not None and self.source is None and not self.astray

    @property
    def waiting(self) -> bool:
        """Whether something is there to be handed out."""
        return self.source is not None or bool(self._again)

    def take(self, limit: int) -> list[Delivery]:
        """The next ones, `limit` at most: first what was given back, then what was fetched."""
        taken = self._again[:limit]
        del self._again[: len(taken)]
        if self.source is not None and len(taken) < limit:
            taken += self._read(limit - len(taken))
        self.held.update((one.receipt[1], one) for one in taken)
        return taken

    def _read(self, limit: int) -> list[Delivery]:
        assert self.frontier is not None
        source = self.source
        records = list(islice(source, limit))
        if len(records) < limit:
            self.source = None
        # behind the last record there may be some that are not for readers: transactions' ends, what was compacted away
        self.frontier.hand_out([record.offset for record in records], source.next_fetch_offset)
        return self._deliveries(records)

    def _deliveries(self, records: Iterable[Any]) -> list[Delivery]:
        topic, part = self.place
        by_key, lane = self._order == "key", self.place if self._order == "partition" else None
        place, message, taken = f"{topic}/{part}@", wire.message, list[Delivery]()
        for record in records:
            offset, key = record.offset, record.key
            position = f"{place}{offset}"
            taken.append(Delivery(message(record, key, position), topic, 1, position, (topic, part, key) if by_key else lane, (self, offset)))
        return taken

    def holds(self, delivery: Delivery) -> bool:
        return delivery.receipt[1] in self.held

    def give_back(self, deliveries: Iterable[Delivery]) -> None:
        """They are handed out again, as if for the first time."""
        for one in deliveries:
            self.held.pop(one.receipt[1], None)
            self._stuck.discard(one.receipt[1])
            self._again.append(Delivery(one.message, one.address, 1, one.position, one.lane, one.receipt))
        self._again.sort(key=_offset)

    def finish(self, offsets: list[int]) -> None:
        assert self.frontier is not None
        for offset in offsets:
            self.held.pop(offset, None)
        self._stuck.difference_update(offsets)
        self.frontier.finish(offsets)

    def stop(self, delivery: Delivery) -> None:
        """Until this one is finished nothing more is handed out."""
        self._stuck.add(delivery.receipt[1])

    def end(self) -> list[Delivery]:
        """From now on it is not ours. Returns what was in hand."""
        self.over, self.source = True, None
        gone = list(self.held.values())
        self.held.clear()
        self._again.clear()
        return gone


def _offset(delivery: Delivery) -> int:
    offset: int = delivery.receipt[1]
    return offset
