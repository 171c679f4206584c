"""Which deliveries may start now: one at a time in each lane, at most `limit` in all. No I/O."""

from collections import deque
from collections.abc import Iterable, Iterator

from busline.core.message import Delivery
from busline.core.ports import Order


def lane(order: Order, place: object, key: bytes | None) -> object:
    """The lane of a record in its `place`, a partition: those of a key have their own, those
    without one share the partition's. None where nothing is kept in order."""
    if order == "key":
        return place if key is None else (place, key)
    return place if order == "partition" else None


class Lanes:
    """Deliveries with an equal `lane` run one after the other, in the order they came; None is
    nobody's lane."""

    __slots__ = ("_limit", "_queues", "_ready", "behind", "running")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.running = 0
        self.behind = 0  # how many wait for their lane
        self._ready: deque[Delivery] = deque()
        # a closed lane, and who waits behind its head
        self._queues: dict[object, deque[Delivery] | None] = {}

    def __repr__(self) -> str:
        return f"<Lanes {self.running} of {self._limit} running, {len(self._ready)} ready>"

    @property
    def free(self) -> int:
        """How many may start now."""
        return min(self._limit - self.running, len(self._ready))

    def add(self, deliveries: Iterable[Delivery]) -> None:
        ready, queues = self._ready, self._queues
        for delivery in deliveries:
            lane = delivery.lane
            if lane is None:
                ready.append(delivery)
            elif lane not in queues:
                queues[lane] = None
                ready.append(delivery)
            else:
                queue = queues[lane]
                if queue is None:
                    queue = queues[lane] = deque()
                queue.append(delivery)
                self.behind += 1

    def take(self) -> Delivery | None:
        """One that may start now; it is to be left, or held, later."""
        if not self._ready or self.running >= self._limit:
            return None
        self.running += 1
        return self._ready.popleft()

    def leave(self, delivery: Delivery) -> None:
        """It ended: its lane opens for the next."""
        self.running -= 1
        lane = delivery.lane
        if lane is not None:
            queue = self._queues[lane]
            if queue:
                self._ready.append(queue.popleft())
                self.behind -= 1
            else:
                del self._queues[lane]

    def hold(self) -> None:
        """It waits for its next attempt: no longer running, its lane stays closed."""
        self.running -= 1

    def give_up(self, delivery: Delivery) -> None:
        """A held one does not come back: its lane opens for the next."""
        self.running += 1
        self.leave(delivery)

    def resume(self, delivery: Delivery) -> None:
        """The head of a held lane may start again."""
        self._ready.appendleft(delivery)

    def unstarted(self) -> Iterator[Delivery]:
        """Everything that waits for its turn."""
        yield from self._ready
        for queue in self._queues.values():
            yield from queue or ()

    def drop(self) -> list[Delivery]:
        """Takes out everything that has not started. Lanes stay closed while their head runs."""
        heads = list(self._ready)
        unstarted = list(heads)
        self._ready.clear()
        for delivery in heads:
            if delivery.lane is not None:
                unstarted.extend(self._queues.pop(delivery.lane) or ())
        for lane, queue in self._queues.items():
            unstarted.extend(queue or ())
            self._queues[lane] = None
        self.behind = 0
        return unstarted
