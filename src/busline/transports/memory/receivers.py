"""The two subscriptions: jobs from queues, records for a group."""

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, TypeVar

from busline.core.address import Address, redriven
from busline.core.counts import Counts, Whose, tally_by, tally_in
from busline.core.frontier import Frontier
from busline.core.lanes import lane
from busline.core.message import Delivery, Message, delivered
from busline.core.outcome import Acked, Rejected, Released, Retried, Settled, Settlement
from busline.core.ports import Host, Start, Subscription
from busline.transports.memory.places import Held, Line, Log

if TYPE_CHECKING:
    from busline.transports.memory import MemoryTransport

T = TypeVar("T")


class Waiting:
    """What both receivers share: waiting until something may be there, and settling one by one."""

    def __init__(
        self, transport: "MemoryTransport", subscription: Subscription, host: Host
    ) -> None:
        self.transport, self.subscription, self.host = transport, subscription, host
        self.held: dict[object, Delivery] = {}
        self.turn = 0
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self, limit: int) -> list[Delivery]:
        raise NotImplementedError

    def next_due(self) -> float | None:
        return None

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while not (taken := self.take(limit)):
            self._waiter = asyncio.get_running_loop().create_future()
            due = self.next_due()
            clock = self.transport.clock
            timer = None if due is None else clock.after(due - clock.time(), self.wake)
            try:
                await self._waiter
            finally:
                if timer is not None:
                    timer.cancel()
        return taken

    async def settle(self, settled: Sequence[Settled]) -> Settlement:
        held = self.held
        applied, refused = list[Settled](), list[Delivery]()
        rejected: list[tuple[Delivery, Rejected]] = []
        for one in settled:
            delivery, outcome = one
            if held.pop(delivery.receipt, None) is None:
                refused.append(delivery)
            elif outcome.effects and (dead := self.transport.check(delivery, outcome)) is not None:
                rejected.append((delivery, dead))
            else:
                applied.append(one)
        applied += rejected
        self.end(applied)
        for whose, counts in self.tally(applied, refused).items():
            self.transport.counts.setdefault(whose, Counts()).add(counts)
        self.wake()
        return Settlement(refused, rejected)

    def tally(self, settled: Sequence[Settled], refused: Sequence[Delivery]) -> dict[Whose, Counts]:
        """The numbers, by handler and by the queue that its dead letters go back to."""
        raise NotImplementedError

    def end(self, settled: Sequence[Settled]) -> None:
        raise NotImplementedError


class QueueReceiver(Waiting):
    """Takes jobs from one or more queues, first come first served in each; each take begins with
    another queue."""

    def tally(self, settled: Sequence[Settled], refused: Sequence[Delivery]) -> dict[Whose, Counts]:
        return tally_by(lambda delivery: str(delivery.receipt[0]), settled, refused)

    def ready(self) -> bool:
        self._promote()
        return any(line.waiting or any(map(self.knows, line.aside)) for line in self._lines())

    def knows(self, task: str) -> bool:
        return self.subscription.tasks is None or task in self.subscription.tasks

    def serves(self, queue: str) -> bool:
        return any(address.name == queue for address in self.subscription.addresses)

    def _lines(self) -> list[Line]:
        return [self.transport.line(address.name) for address in self.subscription.addresses]

    def next_due(self) -> float | None:
        due = [line.due[0][0] for line in self._lines() if line.due]
        met = [
            waiting[0][0] + self.subscription.unknown_limit
            for line in self._lines()
            for waiting in line.aside.values()
        ]
        return min((*due, *met), default=None)

    def _promote(self) -> None:
        now = self.transport.clock.time()
        for address in self.subscription.addresses:
            line = self.transport.line(address.name)
            while line.due and line.due[0][0] <= now:
                id = heapq.heappop(line.due)[2]
                line.retrying.discard(id)
                line.waiting.append(id)

    def take(self, limit: int) -> list[Delivery]:
        self._promote()
        self.turn += 1
        taken: list[Delivery] = []
        met: Counter[str] = Counter()
        room = Room(self.subscription.batch_bytes)
        for address in in_turn(self.subscription.addresses, self.turn):
            line = self.transport.line(address.name)
            self._bring_back(line)
            taken += [
                self._hand_out(id) for id in self._forsaken(address.name, line, limit - len(taken))
            ]
            while line.waiting and len(taken) < limit:
                message = self.transport.jobs[id := line.waiting[0]].message
                known = self.knows(message.task)
                if known and not room.takes(message):
                    break
                line.waiting.popleft()
                if known:
                    taken.append(self._hand_out(id))
                else:
                    line.aside.setdefault(message.task, deque()).append(
                        (self.transport.clock.time(), id)
                    )
                    met[message.task] += 1
        self._tell(met)
        return taken

    def _bring_back(self, line: Line) -> None:
        """What others put aside, and this worker knows, is the first in the queue again."""
        for task in [task for task in line.aside if self.knows(task)]:
            line.waiting.extendleft(id for _, id in reversed(line.aside.pop(task)))

    def _forsaken(self, queue: str, line: Line, limit: int) -> Iterator[str]:
        """What waits aside for too long, and nobody knows."""
        since = self.transport.clock.time() - self.subscription.unknown_limit
        for task, waiting in [*line.aside.items()]:
            if self.transport.knows(queue, task):  # the time begins anew
                line.aside[task] = deque(
                    (met if met > since else self.transport.clock.time(), id) for met, id in waiting
                )
                continue
            while waiting and waiting[0][0] <= since and limit > 0:
                yield waiting.popleft()[1]
                limit -= 1
            if not waiting:
                del line.aside[task]

    def _tell(self, met: Mapping[str, int]) -> None:
        for task, count in met.items():
            self.host.unknown(task, count)
        if met:
            self.transport.wake()

    def _hand_out(self, id: str) -> Delivery:
        job = self.transport.jobs[id]
        job.owner = self
        receipt = (job.queue, id)
        self.held[receipt] = found = delivered(job.message, job.queue, job.attempts + 1, receipt)
        return found

    def end(self, settled: Sequence[Settled]) -> None:
        released: list[Delivery] = []
        for delivery, outcome in settled:
            if isinstance(outcome, Released):
                released.append(delivery)
            else:
                job = self.transport.jobs[delivery.message.id]
                job.owner = None
                self._end_one(job, delivery, outcome)
        self._release(released)

    def _end_one(self, job: Held, delivery: Delivery, outcome: Acked | Rejected | Retried) -> None:
        transport = self.transport
        if isinstance(outcome, Retried):
            job.attempts += outcome.counted
            transport.line(job.queue).retrying.add(job.message.id)
            transport.delay(job.queue, job.message.id, transport.clock.time() + outcome.after)
            return
        transport.finish(job)
        if isinstance(outcome, Rejected):
            transport.bury(delivery, outcome, Address("queue", job.queue), None)
        if outcome.effects:
            transport.apply(outcome.effects)

    def _release(self, deliveries: Sequence[Delivery]) -> None:
        """Back to the head of the queue, in the order they had."""
        for delivery in reversed(deliveries):
            job = self.transport.jobs[delivery.message.id]
            job.owner = None
            self.transport.line(job.queue).waiting.appendleft(job.message.id)

    def leave(self) -> list[Delivery]:
        gone = list(self.held.values())
        self.held.clear()
        self._release(gone)
        return gone


class TopicReceiver(Waiting):
    """Reads the partitions of one or more topics for a group, as long as nobody else does."""

    def __init__(
        self, transport: "MemoryTransport", subscription: Subscription, host: Host
    ) -> None:
        super().__init__(transport, subscription, host)
        for address in subscription.addresses:
            self._frontiers(address)

    def _frontiers(self, address: Address) -> list[Frontier]:
        key, parts = (
            (self.subscription.group or "", address.name),
            self.transport.log(address).parts,
        )
        known = self.transport.groups.get(key)
        if known is None:
            known = self.transport.groups[key] = [
                Frontier(_first(part, self.subscription.start)) for part in parts
            ]
        return known

    def _owned(self) -> list[tuple[Address, Log, list[Frontier]]]:
        """The topics this receiver reads: taken if nobody else has them."""
        found = []
        for address in self.subscription.addresses:
            if (
                self.transport.owners.setdefault(
                    (self.subscription.group or "", address.name), self
                )
                is self
            ):
                found.append((address, self.transport.log(address), self._frontiers(address)))
        return found

    def tally(self, settled: Sequence[Settled], refused: Sequence[Delivery]) -> dict[Whose, Counts]:
        return tally_in(redriven(self.subscription.group or "").name, settled, refused)

    def ready(self) -> bool:
        return bool(self._behind())

    def _behind(self) -> list[tuple[Address, int, list[Message], Frontier]]:
        """The partitions that have records to be read, and room for them."""
        ahead = self.subscription.ahead
        return [
            (address, n, part, frontier)
            for address, topic, frontiers in self._owned()
            for n, (part, frontier) in enumerate(zip(topic.parts, frontiers, strict=True))
            if frontier.next < len(part) and frontier.unfinished < ahead
        ]

    def take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while not taken and (
            behind := self._behind()
        ):  # what is finished already, or in hand, is passed over
            self.turn += 1
            room = Room(self.subscription.batch_bytes)
            for left, (address, n, part, frontier) in zip(
                range(len(behind), 0, -1), in_turn(behind, self.turn), strict=True
            ):
                share = -(
                    -(limit - len(taken)) // left
                )  # while others wait, none takes more than half
                ahead = min(share, self.subscription.ahead - frontier.unfinished)
                self._read(
                    address, n, frontier, part[frontier.next : frontier.next + ahead], room, taken
                )
        return taken

    def _read(
        self,
        address: Address,
        n: int,
        frontier: Frontier,
        part: list[Message],
        room: "Room",
        taken: list[Delivery],
    ) -> None:
        held, order, name, first = self.held, self.subscription.order, address.name, frontier.next
        upto = first + len(list(takewhile(room.takes, part)))
        offsets, place, every = frontier.wanted(range(first, upto)), f"{name}/{n}@", (name, n)
        for at in offsets:
            message, receipt = part[at - first], (name, n, at)
            own = lane(order, every, message.key)
            held[receipt] = delivery = Delivery(message, name, 1, f"{place}{at}", own, receipt)
            taken.append(delivery)
        frontier.hand_out(offsets, upto)

    def end(self, settled: Sequence[Settled]) -> None:
        finished: dict[tuple[str, int], list[int]] = {}
        released: list[Delivery] = []
        for delivery, outcome in settled:
            name, n, offset = delivery.receipt
            if isinstance(outcome, (Released, Retried)):
                released.append(delivery)
                continue
            if isinstance(outcome, Rejected):
                self.transport.bury(
                    delivery, outcome, Address("topic", name), self.subscription.group
                )
            if outcome.effects:
                self.transport.apply(outcome.effects)
            finished.setdefault((name, n), []).append(offset)
        for (name, n), offsets in finished.items():
            self.transport.groups[self.subscription.group or "", name][n].finish(offsets)
        self._release(released)

    def _release(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            name, n, offset = delivery.receipt
            self.transport.groups[self.subscription.group or "", name][n].rewind(offset)

    def leave(self) -> list[Delivery]:
        gone = list(self.held.values())
        self.held.clear()
        self._release(gone)
        for key in [key for key, owner in self.transport.owners.items() if owner is self]:
            del self.transport.owners[key]
        return gone


class Room:
    """Bytes of bodies for one hand-out. A message that is larger than all of it comes alone."""

    def __init__(self, size: int) -> None:
        self._left, self._empty = size, True

    def takes(self, message: Message) -> bool:
        self._left -= len(message.body or b"")
        fits, self._empty = self._left >= 0 or self._empty, False
        return fits


def in_turn(things: Sequence[T], turn: int) -> Sequence[T]:
    """The same things, beginning with another one each turn."""
    first = turn % len(things)
    return [*things[first:], *things[:first]]


def _first(part: list[Message], start: Start) -> int:
    if start == "earliest":
        return 0
    if start == "latest":
        return len(part)
    return next((n for n, one in enumerate(part) if one.at >= start), len(part))
