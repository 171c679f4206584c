"""What a worker has in hand. A delivery waits for its lane or its place, runs, is parked, or has
finished and waits to be settled; it counts as held from `add` to `drop`."""

import asyncio
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Future
from itertools import chain

from busline.core.clock import Clock, Timer
from busline.core.lanes import Lanes
from busline.core.message import Delivery
from busline.core.outcome import Retried
from busline.runtime.work import Work

MOST = 20_000  # whatever waits for its lane
FULL = 4  # times what one receive may bring, in bytes


class Held:
    """Received and not settled. There is room for a buffer full of deliveries, and for so many
    bytes; of those whose functions will run in threads for as many as there are threads. `resumed`
    is called when one that was parked may start."""

    def __init__(self, work: Work, clock: Clock, resumed: Callable[[], None]) -> None:
        self.lanes = Lanes(work.concurrency)
        self.parked = Parked(self.lanes, clock, resumed)
        self._buffer, self._threads = work.buffer, work.threads
        self._full = FULL * work.subscription.batch_bytes
        self._threaded = {name for name, handler in work.handlers.items() if handler.threaded}
        self.count = 0
        self.leaving = 0  # of them those that are being settled: they leave room when others come
        self._bytes = 0
        self._waiting = 0  # for threads, or in them

    def __repr__(self) -> str:
        return (
            f"<Held {self.count}, {self._bytes} bytes, {self._waiting} for {self._threads} threads>"
        )

    def add(self, deliveries: Sequence[Delivery]) -> None:
        self._note(deliveries, 1)
        self.lanes.add(deliveries)

    def drop(self, deliveries: Sequence[Delivery]) -> None:
        """They are settled, or not ours any more."""
        self._note(deliveries, -1)

    def _note(self, deliveries: Sequence[Delivery], sign: int) -> None:
        self.count += sign * len(deliveries)
        self._bytes += sign * sum([one._size for one in deliveries])
        if self._threaded:
            self._waiting += sign * sum(one.message.task in self._threaded for one in deliveries)

    def unstarted(self) -> Iterator[Delivery]:
        """What waits for its turn, or is parked."""
        return chain(self.lanes.unstarted(), self.parked)

    def take(self, receipts: Set[object] | None) -> list[Delivery]:
        """Takes those with these receipts out that have not begun, None for all: somebody else has
        them now, or they are given back. They are still held."""
        waiting = self.lanes.drop()
        if receipts is not None:
            self.lanes.add(one for one in waiting if one.receipt not in receipts)
            waiting = [one for one in waiting if one.receipt in receipts]
        return waiting + self.parked.take(receipts)

    def room(self) -> int:
        """How many more may be received; 0 where a handful is not worth the way. What waits behind
        its lane takes no room from what could start."""
        if self._bytes >= self._full:
            return 0
        lanes = self.lanes
        staying = self.count - self.leaving - lanes.behind
        room = min(self._buffer - staying, MOST - self.count)
        if self._threaded:
            room = min(room, self._threads - self._waiting)
        # a quarter of the buffer, or anything once less waits here than runs
        hungry = self.count - lanes.behind - lanes.running <= lanes.running
        return max(room, 0) if hungry or room >= self._buffer // 4 else 0


class Parked:
    """Deliveries that begin again later, their lanes closed meanwhile: retries that wait for their
    time, and those whose earlier run still has a thread. `resumed`: one may start."""

    def __init__(self, lanes: Lanes, clock: Clock, resumed: Callable[[], None]) -> None:
        self._lanes, self._clock, self._resumed = lanes, clock, resumed
        self._waiting: dict[object, tuple[Timer, Delivery]] = {}

    def __iter__(self) -> Iterator[Delivery]:
        return iter([delivery for _, delivery in self._waiting.values()])

    def retry(self, delivery: Delivery, outcome: Retried) -> None:
        """Its next attempt begins when its time has come."""
        self._lanes.hold()
        fresh = delivery.again()
        fresh.attempt += outcome.counted
        timer = self._clock.after(outcome.after, lambda: self._resume(fresh))
        self._waiting[delivery.receipt] = timer, fresh

    def behind(self, thread: Future[None], delivery: Delivery) -> None:
        """It begins when a thread has ended."""
        self._lanes.hold()
        waiting = asyncio.get_running_loop().create_task(
            _until(thread), name=f"busline thread {delivery.handler}"
        )
        waiting.add_done_callback(lambda task: None if task.cancelled() else self._resume(delivery))
        self._waiting[delivery.receipt] = waiting, delivery

    def _resume(self, delivery: Delivery) -> None:
        del self._waiting[delivery.receipt]
        self._lanes.resume(delivery)
        self._resumed()

    def take(self, receipts: Set[object] | None) -> list[Delivery]:
        """Takes out those with these receipts, None for all: their lanes open."""
        taken: list[Delivery] = []
        for receipt in [*self._waiting] if receipts is None else receipts & self._waiting.keys():
            timer, delivery = self._waiting.pop(receipt)
            timer.cancel()
            self._lanes.give_up(delivery)
            taken.append(delivery)
        return taken


async def _until(thread: Future[None]) -> None:
    """Whoever gives up waiting for it leaves the thread alone."""
    await asyncio.shield(asyncio.wrap_future(thread))
