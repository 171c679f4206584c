"""The reference engine: the shortest true implementation of every port, in this process's
memory."""

import heapq
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Self

from busline.core.address import Address, redriven, redriven_group
from busline.core.causes import told
from busline.core.clock import Clock, SystemClock
from busline.core.counts import Counts, Whose
from busline.core.errors import Invalid, wrong
from busline.core.frontier import Frontier
from busline.core.ids import new_id
from busline.core.message import DeadLetter, Delivery, Message
from busline.core.outcome import Effect, Outcome, Rejected, Send
from busline.core.ports import Features, Host, Receiver, Subscription
from busline.transports.memory.inspector import MemoryInspector
from busline.transports.memory.places import Held, Letter, Line, Log
from busline.transports.memory.receivers import QueueReceiver, TopicReceiver
from busline.transports.memory.store import MemoryStore

log = logging.getLogger("busline")
PARTITIONS = 16


class MemoryTransport:
    """Everything is gone with the process. All of it runs in the loop, without a lock: no method
    waits but to receive."""

    features = Features(topics=True, queues=True, durable=False)
    system, server = "memory", None

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
        self.counts: dict[Whose, Counts] = {}
        self.receivers: list[TopicReceiver | QueueReceiver] = []
        self._sent: dict[tuple[str, str], list[Message]] = {}
        self._order = count()

    def __repr__(self) -> str:
        return (
            f"<MemoryTransport {len(self.logs)} topics, {len(self.jobs)} jobs, {len(self.letters)}"
            " dead>"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    # --- publishing --------------------------------------------------------------------------

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        return self.add(address, messages)

    def add(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        if address.kind == "topic":
            topic = self.log(address)
            for message in messages:
                topic.parts[topic.place(message)].append(message)
            there: dict[int, str] = {}
        else:
            there = {
                n: id
                for n, message in enumerate(messages)
                if (id := self._add_job(address.name, message)) is not None
            }
        self._sent.setdefault(address[:2], []).extend(
            one for n, one in enumerate(messages) if n not in there
        )
        self.wake()
        return there

    def log(self, address: Address) -> Log:
        """A topic's log, made at first use. Raises Invalid for another number of partitions than it
        has."""
        topic = self.logs.get(address.name)
        if topic is None:
            topic = self.logs[address.name] = Log(
                [[] for _ in range(address.partitions or PARTITIONS)]
            )
        elif address.partitions not in (None, len(topic.parts)):
            remedy = "Partitions are fixed at a topic's first use: correct the declaration."
            raise Invalid(
                wrong(
                    address.name,
                    f"partitions={len(topic.parts)}, as the topic has",
                    f"{address.partitions}",
                    remedy,
                )
            )
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

    def knows(self, queue: str, task: str) -> bool:
        """Whether a worker of this queue knows a task."""
        takers = (one for one in self.receivers if isinstance(one, QueueReceiver))
        return any(one.serves(queue) and one.knows(task) for one in takers)

    def finish(self, job: Held) -> None:
        """A job is final: its lock is free, its id remembered if it asked for that."""
        message = job.message
        del self.jobs[message.id]
        if message.unique is not None:
            self.locks.pop(message.unique, None)
        if message.remember:
            self.remembered[message.id] = self.clock.time() + message.remember

    def check(self, delivery: Delivery, outcome: Outcome) -> Rejected | None:
        """What becomes of an outcome whose sends can never be done: it has all or none."""
        try:
            for effect in outcome.effects:
                if isinstance(effect, Send) and effect.address.kind == "topic":
                    self.log(effect.address)
        except Invalid as error:
            log.error(
                "%r is put into the dead letters, for its sends cannot be done: %s", delivery, error
            )
            return Rejected(f"its sends cannot be done: {error}", error)
        return None

    def apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.add(effect.address, [effect.message])
            else:
                self.store.keep(effect.key, effect.value, effect.ttl)

    def bury(
        self, delivery: Delivery, outcome: Rejected, address: Address, group: str | None
    ) -> None:
        message = delivery.message
        kind, text, causes, where = told(outcome.error)
        id = message.id if message.id not in self.letters else new_id()
        shown = DeadLetter(
            id=id,
            address=delivery.address,
            handler=delivery.handler,
            position=delivery.position,
            key=message.key,
            body=message.body,
            raw_headers=message.headers,
            reason=outcome.reason,
            error_type=kind,
            error=text,
            attempts=delivery.attempt,
            died_at=self.clock.time(),
            at=message.at,
            group=group or redriven_group(address.name),
            causes=causes,
            traceback=where,
        )
        back = address if group is None else redriven(group)
        kept = (
            message
            if group is None
            else replace(message, task=delivery.handler, origin=delivery.position)
        )
        self.letters[id] = Letter(shown, kept, back)
        if outcome.error is not None:
            self.errors[id] = outcome.error

    # --- for tests ---------------------------------------------------------------------------

    def published(self, address: Address) -> list[Message]:
        """Everything that was sent to an address, oldest first."""
        return list(self._sent.get(address[:2], ()))

    def quiet(self) -> bool:
        """Whether nothing is ready that a living receiver could take."""
        return not any(receiver.ready() for receiver in self.receivers)

    # --- receiving ---------------------------------------------------------------------------

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
        """As if a lease had run out: what the receiver holds is handed out again, its settling is
        refused."""
        gone = receiver.leave()
        receiver.host.recall(gone)
        self.wake()
