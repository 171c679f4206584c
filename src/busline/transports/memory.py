"""The reference engine: the shortest true implementation of every port, in this process's memory."""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Self, TypeVar

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock
from busline.core.counts import Counts, tally
from busline.core.errors import Invalid, describe, wrong
from busline.core.frontier import Frontier
from busline.core.ids import new_id
from busline.core.message import DeadLetter, Delivery, Message
from busline.core.outcome import ACKED, Acked, Effect, Outcome, Rejected, Released, Retried, Send
from busline.core.partition import partition
from busline.core.ports import Depth, Features, Host, Lag, Look, Receiver, Redriven, Start, State, Subscription

log = logging.getLogger("busline")
PARTITIONS = 16
Settled = tuple[Delivery, Outcome]
T = TypeVar("T")


@dataclass(slots=True)
class Log:
    """A topic: its partitions' messages, in order."""

    parts: list[list[Message]]
    turn: int = 0

    def place(self, message: Message) -> int:
        """The partition of a message: by its key, else in turn."""
        if message.key is not None:
            return partition(message.key, len(self.parts))
        self.turn += 1
        return self.turn % len(self.parts)


@dataclass(slots=True)
class Line:
    """A queue: who waits, and who waits for a time. `retrying` are the ids of those that failed before."""

    waiting: deque[str] = field(default_factory=deque[str])
    due: list[tuple[float, int, str]] = field(default_factory=list[tuple[float, int, str]])
    retrying: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class Held:
    """A living job: its message, its queue, the attempts so far, and whoever has it in hand."""

    message: Message
    queue: str
    attempts: int = 0
    owner: object = None


@dataclass(slots=True)
class Letter:
    """A dead letter, with what brings it back."""

    shown: DeadLetter
    message: Message
    address: Address


class MemoryTransport:
    """Everything is gone with the process. All of it runs in the loop, without a lock: no method waits but to receive."""

    features = Features(topics=True, queues=True, durable=False)

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.store = MemoryStore(self.clock)
        self.inspector = MemoryInspector(self)
        self.logs: dict[str, Log] = {}
        self.lines: dict[str, Line] = {}
        self.jobs: dict[str, Held] = {}
        self.locks: dict[str, str] = {}
        self.remembered: dict[str, float] = {}
        self.groups: dict[tuple[str, str], list[Frontier]] = {}
        self.owners: dict[tuple[str, str], object] = {}
        self.letters: dict[str, Letter] = {}
        self.errors: dict[str, BaseException] = {}
        self.counts: dict[str, Counts] = {}
        self.receivers: list[TopicReceiver | QueueReceiver] = []
        self._sent: dict[tuple[str, str], list[Message]] = {}
        self._order = count()

    def __repr__(self) -> str:
        return f"<MemoryTransport {len(self.logs)} topics, {len(self.jobs)} jobs, {len(self.letters)} dead>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    # --- publishing ----------------------------------------------------------------------------------------

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        return self.add(address, messages)

    def add(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        if address.kind == "topic":
            topic = self.log(address)
            for message in messages:
                topic.parts[topic.place(message)].append(message)
            there: dict[int, str] = {}
        else:
            there = {n: id for n, message in enumerate(messages) if (id := self._add_job(address.name, message)) is not None}
        self._sent.setdefault(address[:2], []).extend(one for n, one in enumerate(messages) if n not in there)
        self.wake()
        return there

    def log(self, address: Address) -> Log:
        """A topic's log, made at first use. Raises Invalid for another number of partitions than it has."""
        topic = self.logs.get(address.name)
        if topic is None:
            topic = self.logs[address.name] = Log([[] for _ in range(address.partitions or PARTITIONS)])
        elif address.partitions not in (None, len(topic.parts)):
            remedy = "Partitions are fixed at a topic's first use: correct the declaration."
            raise Invalid(wrong(address.name, f"partitions={len(topic.parts)}, as the topic has", f"{address.partitions}", remedy))
        return topic

    def line(self, name: str) -> Line:
        line = self.lines.get(name)
        if line is None:
            line = self.lines[name] = Line()
        return line

    def _add_job(self, queue: str, message: Message) -> str | None:
        """Adds a job; returns the id of the one that is there already instead."""
        if message.id in self.jobs or self.remembered.get(message.id, 0.0) > self.clock.time():
            return message.id
        if message.unique is not None:
            holder = self.locks.setdefault(message.unique, message.id)
            if holder != message.id:
                return holder
        self.jobs[message.id] = Held(message, queue)
        if message.due is not None and message.due > self.clock.time():
            self.delay(queue, message.id, message.due)
        else:
            self.line(queue).waiting.append(message.id)
        return None

    def delay(self, queue: str, id: str, due: float) -> None:
        heapq.heappush(self.line(queue).due, (due, next(self._order), id))

    def wake(self) -> None:
        for receiver in self.receivers:
            receiver.wake()

    def finish(self, job: Held) -> None:
        """A job is final: its lock is free, its id remembered if it asked for that."""
        message = job.message
        del self.jobs[message.id]
        if message.unique is not None:
            self.locks.pop(message.unique, None)
        if message.remember:
            self.remembered[message.id] = self.clock.time() + message.remember

    def possible(self, settled: Settled) -> Settled:
        """The same, or the delivery in the dead letters if its sends can never be done: an outcome has all or none."""
        delivery, outcome = settled
        try:
            if isinstance(outcome, Acked | Rejected):
                for effect in outcome.effects:
                    if isinstance(effect, Send) and effect.address.kind == "topic":
                        self.log(effect.address)
        except Invalid as error:
            log.error("%r is put into the dead letters, for its sends cannot be done: %s", delivery, error)
            return delivery, Rejected(f"its sends cannot be done: {error}", error)
        return settled

    def apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.add(effect.address, [effect.message])
            else:
                self.store.keep(effect.key, effect.value, effect.ttl)

    def bury(self, delivery: Delivery, outcome: Rejected, address: Address, group: str | None) -> None:
        message = delivery.message
        kind, text = describe(outcome.error) if outcome.error is not None else (None, None)
        id = message.id if message.id not in self.letters else new_id()
        shown = DeadLetter(
            id, delivery.address, delivery.handler, delivery.position, message.key, message.body, message.headers,
            outcome.reason, kind, text, delivery.attempt, self.clock.time(), message.at,
            group or (address.name[1:] if address.name.startswith("~") else None),
        )  # fmt: skip
        back = address if group is None else Address("queue", f"~{group}")
        kept = message if group is None else replace(message, task=delivery.handler, origin=delivery.position)
        self.letters[id] = Letter(shown, kept, back)
        if outcome.error is not None:
            self.errors[id] = outcome.error

    # --- for tests -----------------------------------------------------------------------------------------

    def published(self, address: Address) -> list[Message]:
        """Everything that was sent to an address, oldest first."""
        return list(self._sent.get(address[:2], ()))

    def quiet(self) -> bool:
        """Whether nothing is ready that a living receiver could take."""
        return not any(receiver.ready() for receiver in self.receivers)

    # --- receiving -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        made = QueueReceiver if subscription.group is None else TopicReceiver
        receiver = made(self, subscription, host)
        self.receivers.append(receiver)
        try:
            yield receiver
        finally:
            self.receivers.remove(receiver)
            receiver.leave()
            self.wake()

    def lose(self, receiver: "TopicReceiver | QueueReceiver") -> None:
        """As if a lease had run out: what the receiver holds is handed out again, its settling is refused."""
        gone = receiver.leave()
        receiver.host.recall(gone)
        self.wake()


class Waiting:
    """What both receivers share: waiting until something may be there, and settling one by one."""

    def __init__(self, transport: MemoryTransport, subscription: Subscription, host: Host) -> None:
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

    async def settle(self, settled: Sequence[Settled]) -> Sequence[Delivery]:
        held, refused = self.held, []
        applied: list[Settled] = []
        for one in settled:
            if held.pop(one[0].receipt, None) is None:
                refused.append(one[0])
            else:
                applied.append(one if one[1] is ACKED else self.transport.possible(one))
        self.end(applied)
        for name, counts in tally(applied).items():
            self.transport.counts.setdefault(name, Counts()).add(counts)
        for delivery in refused:
            self.transport.counts.setdefault(delivery.handler, Counts()).refused += 1
        self.wake()
        return refused

    def end(self, settled: Sequence[Settled]) -> None:
        raise NotImplementedError


class QueueReceiver(Waiting):
    """Takes jobs from one or more queues, first come first served in each; each take begins with another queue."""

    def ready(self) -> bool:
        self._promote()
        return any(self.transport.line(address.name).waiting for address in self.subscription.addresses)

    def next_due(self) -> float | None:
        lines = [self.transport.line(address.name) for address in self.subscription.addresses]
        return min((line.due[0][0] for line in lines if line.due), default=None)

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
        for address in in_turn(self.subscription.addresses, self.turn):
            waiting = self.transport.line(address.name).waiting
            while waiting and len(taken) < limit:
                taken.append(self._hand_out(waiting.popleft()))
        return taken

    def _hand_out(self, id: str) -> Delivery:
        job = self.transport.jobs[id]
        job.owner = self
        origin = job.message.origin
        address = job.queue if origin is None else origin.rpartition("/")[0]
        self.held[id] = delivery = Delivery(job.message, address, job.attempts + 1, origin, None, id)
        return delivery

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

    def __init__(self, transport: MemoryTransport, subscription: Subscription, host: Host) -> None:
        super().__init__(transport, subscription, host)
        for address in subscription.addresses:
            self._frontiers(address)

    def _frontiers(self, address: Address) -> list[Frontier]:
        key, parts = (self.subscription.group or "", address.name), self.transport.log(address).parts
        known = self.transport.groups.get(key)
        if known is None:
            known = self.transport.groups[key] = [Frontier(_first(part, self.subscription.start)) for part in parts]
        return known

    def _owned(self) -> list[tuple[Address, Log, list[Frontier]]]:
        """The topics this receiver reads: taken if nobody else has them."""
        found = []
        for address in self.subscription.addresses:
            if self.transport.owners.setdefault((self.subscription.group or "", address.name), self) is self:
                found.append((address, self.transport.log(address), self._frontiers(address)))
        return found

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
        while not taken and (behind := self._behind()):  # what is finished already, or in hand, is passed over
            self.turn += 1
            for left, (address, n, part, frontier) in zip(range(len(behind), 0, -1), in_turn(behind, self.turn), strict=True):
                share = -(-(limit - len(taken)) // left)  # while others wait, none takes more than half
                self._read(address, n, part, frontier, min(share, self.subscription.ahead - frontier.unfinished), taken)
        return taken

    def _read(self, address: Address, n: int, part: list[Message], frontier: Frontier, room: int, taken: list[Delivery]) -> None:
        held, lane, name = self.held, self.subscription.order, address.name
        upto = min(frontier.next + room, len(part))
        offsets, place, every = frontier.wanted(range(frontier.next, upto)), f"{name}/{n}@", (name, n)
        for at in offsets:
            message, receipt = part[at], (name, n, at)
            own = every if lane == "partition" or (lane == "key" and message.key is None) else (name, n, message.key) if lane == "key" else None
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
                self.transport.bury(delivery, outcome, Address("topic", name), self.subscription.group)
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


class MemoryStore:
    """Facts by key, until their time is over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._facts: dict[str, tuple[bytes, float]] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def look(self, key: str) -> bytes | None:
        value, until = self._facts.get(key, (b"", 0.0))
        return value if until > self._clock.time() else None

    def keep(self, key: str, value: bytes, ttl: float) -> None:
        self._facts[key] = value, self._clock.time() + ttl
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def forget(self, key: str) -> None:
        self._facts.pop(key, None)

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        return [self.look(key) for key in keys]

    async def put(self, key: str, value: bytes, ttl: float, *, absent: bool = False) -> bool:
        if absent and self.look(key) is not None:
            return False
        self.keep(key, value, ttl)
        return True

    async def wait(self, key: str, until: float | None) -> bytes | None:
        while (value := self.look(key)) is None and (until is None or self._clock.ticks() < until):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(key, set()).add(waiter)
            timer = None if until is None else self._clock.after(until - self._clock.ticks(), partial(_wake, waiter))
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
                self._leave(key, waiter)
        return value

    def _leave(self, key: str, waiter: "asyncio.Future[None]") -> None:
        if (waiting := self._waiters.get(key)) is not None:
            waiting.discard(waiter)
            if not waiting:
                del self._waiters[key]


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class MemoryInspector:
    """Looks into the engine, and steers its dead letters."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._of = transport

    async def look(self, id: str) -> Look:
        if (job := self._of.jobs.get(id)) is not None:
            line = self._of.line(job.queue)
            state: State = "running" if job.owner is not None else "waiting" if id in line.waiting else "delayed"
            return Look(state, job.attempts + (state == "running"))
        if (letter := self._of.letters.get(id)) is not None:
            return Look("failed", letter.shown.attempts, letter.shown)
        return Look("succeeded" if self._of.store.look(f"result/{id}") is not None else "unknown")

    async def depth(self) -> Mapping[str, Depth]:
        running: dict[str, int] = {}
        for job in self._of.jobs.values():
            running[job.queue] = running.get(job.queue, 0) + (job.owner is not None)
        return {
            name: Depth(len(line.waiting), len(line.due) - len(line.retrying), len(line.retrying), running.get(name, 0))
            for name, line in self._of.lines.items()
        }

    async def lag(self, groups: Sequence[str] | None = None) -> Sequence[Lag]:
        found = []
        for (group, topic), frontiers in self._of.groups.items():
            if groups is None or group in groups:
                parts = self._of.logs[topic].parts
                behind = sum(one.behind(len(parts[n])) for n, one in enumerate(frontiers))
                found.append(Lag(group, topic, behind, len(parts), int((group, topic) in self._of.owners)))
        return found

    async def partitions(self, topic: str) -> int:
        return len(self._of.logs[topic].parts) if topic in self._of.logs else 0

    async def counts(self) -> Mapping[str, Counts]:
        return {name: replace(one) for name, one in self._of.counts.items()}

    async def dead(self, *, handlers: Sequence[str] | None = None, id: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        shown = [letter.shown for letter in self._of.letters.values()]
        if after in self._of.letters:
            shown = shown[list(self._of.letters).index(after) + 1 :]
        return [one for one in shown if (handlers is None or one.handler in handlers) and id in (None, one.id)][:limit]

    async def redrive(self, ids: Sequence[str]) -> Redriven:
        again, refused = 0, []
        for id in ids:
            letter = self._of.letters.get(id)
            if letter is None:
                continue
            holder = self._of.locks.get(letter.message.unique or "")
            if holder is not None:
                refused.append(wrong(id, "no living job of the same unique key", f"the job {holder}", "Redrive it when that one is final."))
                continue
            self._redrive(id, letter)
            again += 1
        return Redriven(again, tuple(refused))

    def _redrive(self, id: str, letter: Letter) -> None:
        del self._of.letters[id]
        self._of.errors.pop(id, None)
        self._of.store.forget(f"result/{id}")
        self._of.remembered.pop(id, None)
        own = new_id() if id in self._of.jobs else id  # another job lives under this id
        self._of.add(letter.address, [replace(letter.message, id=own, due=None)])

    async def purge(self, ids: Sequence[str]) -> int:
        for id in ids:
            self._of.errors.pop(id, None)
        return sum(self._of.letters.pop(id, None) is not None for id in ids)
