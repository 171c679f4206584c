"""An App while it is open: its engines, and what is sent to them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import asdict
from typing import Any

from busline.core.address import Address, redriven
from busline.core.clock import Clock, SystemClock
from busline.core.counts import Counts
from busline.core.errors import Invalid, wrong
from busline.core.ids import derived_id, new_id
from busline.core.message import DeadLetter, Delivery, Headers, Message
from busline.core.outcome import Send
from busline.core.outgoing import Outgoing
from busline.core.ports import Lag, Redriven, Transport
from busline.runtime.doors import Doors
from busline.runtime.engines import Engines
from busline.runtime.sending import Sends, handling, inherit, leave_with, record_job_id
from busline.runtime.telling import Listen, Telling
from busline.runtime.worker import Worker

log = logging.getLogger("busline")
PAGE = 500
YIELD_EVERY = 100  # sends of one attempt
STREAM_SENT = 3600.0  # seconds for which another engine remembers a job sent by a record


def unheard(_: str) -> None:
    """Nobody asks what is waited for."""


class Bus:
    """Sends. `workers`: those of what it consumes. `propagate`: the headers that what is handled
    hands on to what is sent. `patience`: seconds in which an engine that is away may come; `note`
    is told what is waited for."""

    def __init__(
        self,
        engines: Engines,
        clock: Clock | None = None,
        *,
        propagate: Sequence[str] = (),
        outgoing: Outgoing | None = None,
        patience: float = 0.0,
        note: Callable[[str], object] = unheard,
        listen: Listen | None = None,
    ) -> None:
        self.engines = engines
        self.clock: Clock = clock or SystemClock()
        self.telling = Telling(self.clock, listen)
        self._doors, self.note = Doors(patience), note
        self._propagate, self._outgoing = frozenset(propagate), outgoing
        self.counts: dict[str, Counts] = {}
        self.workers: list[Worker] = []

    def away(self) -> dict[str, str]:
        """What is waited for, by subscriber and partition, or queue; empty while every engine
        answers."""
        return {name: text for worker in self.workers for name, text in list(worker.away.items())}

    # --- what its workers serve --------------------------------------------------------------

    def queues(self) -> set[str]:
        return {
            address.name
            for worker in self.workers
            if worker.work.subscription.group is None
            for address in worker.work.subscription.addresses
        }

    async def lag(self) -> Sequence[Lag]:
        """How many records each of their groups has not finished. Raises Unavailable."""
        read = {
            (group, one.name)
            for worker in self.workers
            if (group := worker.work.subscription.group)
            for one in worker.work.subscription.addresses
        }
        if self.engines.streams is None:
            return []
        found = await self.engines.streams.inspector.lag(
            list(dict.fromkeys(group for group, _ in read))
        )
        return [one for one in found if (one.group, one.topic) in read]

    # --- sending -----------------------------------------------------------------------------

    async def send(
        self, address: Address, messages: Sequence[Message], *, now: bool = False
    ) -> Mapping[int, str]:
        """Inside a handler they leave with its outcome, unless `now`. Returns those that were there
        already."""
        delivery = None if now else handling()
        if delivery is None:
            return await self._send(address, messages)
        for message in messages:
            self.leave(delivery, address, message)
        if delivery.sends is not None and len(delivery.sends) % YIELD_EVERY < len(messages):
            await asyncio.sleep(0)  # a function that sends very much lets others run meanwhile
        return {}

    async def _send(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        if self._propagate:
            inherit(self._propagate, messages)
        engine = self.engines.of(address)
        if engine not in self._doors:
            await self._doors.open(engine)
        if self._outgoing is None:
            return await engine.publish(address, messages)
        with self._outgoing.send(address, messages):
            return await engine.publish(address, messages)

    def leave(self, delivery: Delivery, address: Address, message: Message) -> None:
        """Adds a message to what leaves with a delivery's outcome."""
        sends = delivery.sends
        assert isinstance(sends, Sends)
        if self._propagate:
            inherit(self._propagate, (message,))
        if address.kind == "queue" and delivery.in_lane and not message.remember:
            message.id = record_job_id(delivery, sends, address.name, message)
            if self.engines.jobs is not self.engines.streams:
                message.remember = STREAM_SENT
        if self._outgoing is not None:
            self._outgoing.create(address, message)
        leave_with(delivery, sends, Send(address, message))

    def message(
        self,
        body: bytes | None,
        *,
        id: str | None = None,
        key: bytes | None = None,
        headers: Headers = (),
        **fields: Any,
    ) -> Message:
        """A message made now, with a new id unless it is given."""
        return Message(id or new_id(), body, headers, key, self.clock.time(), **fields)

    def waiting(self, address: Address, id: str) -> AbstractContextManager[object]:
        """Entered around the wait for a job's result."""
        return nullcontext() if self._outgoing is None else self._outgoing.wait(address, id)

    async def look_for(self, topics: Sequence[Address]) -> None:
        """Raises Unavailable for a topic that is not there, Invalid for one with another number of
        partitions."""
        for address in topics:
            await (await self.engine(address)).publish(address, [])

    # --- dead letters ------------------------------------------------------------------------

    async def redrive(
        self, engine: Transport, ids: Sequence[str], handler: str | None = None
    ) -> Redriven:
        """Dead letters go back to `handler`, or the handlers they died in. Those of an engine
        without queues become jobs of the other one. Raises Invalid where there is no other."""
        if engine.features.queues:
            return await engine.inspector.redrive(ids, handler)
        jobs = self.engines.jobs
        if jobs is None:
            remedy = "Set BUSLINE_JOBS or App(jobs=), here and for `busline run`."
            raise Invalid(
                wrong(
                    "redrive",
                    "a jobs engine: dead letters of records run again as jobs",
                    "none",
                    remedy,
                )
            )
        await self._doors.open(jobs)
        wanted, last, done, refused = set(ids), "", 0, list[str]()
        while wanted and (page := await engine.inspector.dead(limit=PAGE, after=last)):
            last = page[-1].id
            letters = [one for one in page if one.id in wanted]
            wanted.difference_update(one.id for one in letters)
            refused += [_not_kept(one) for one in letters if one.missing]
            done += await self._again(
                engine, jobs, [one for one in letters if not one.missing], handler
            )
        return Redriven(done, tuple(refused))

    @staticmethod
    async def _again(
        engine: Transport, jobs: Transport, letters: Sequence[DeadLetter], handler: str | None
    ) -> int:
        groups: dict[str | None, list[Message]] = {}
        for one in letters:
            groups.setdefault(one.group, []).append(_as_job(one, handler or one.handler))
        for group, messages in groups.items():
            await jobs.publish(redriven(group or ""), messages)
        return await engine.inspector.purge([one.id for one in letters]) if letters else 0

    # --- consuming ---------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """With all its engines open."""
        async with self._doors:
            for engine in self.engines.all():
                self.note(
                    f"the engine {engine.system}"
                    + (" at {}:{}".format(*engine.server) if engine.server else "")
                )
                await self._doors.open(engine)
            yield

    @asynccontextmanager
    async def sending(self) -> AsyncGenerator[None]:
        """With engines that are opened when they are needed; an only one is needed for whatever
        comes."""
        async with self._doors:
            if len(engines := self.engines.all()) == 1:
                await self._doors.open(engines[0])
            yield

    async def engine(self, address: Address) -> Transport:
        """The engine that keeps an address, open. Raises Unavailable where it is away."""
        engine = self.engines.of(address)
        await self._doors.open(engine)
        return engine

    async def every_engine(self) -> list[Transport]:
        """All its engines, open."""
        engines = self.engines.all()
        for engine in engines:
            await self._doors.open(engine)
        return engines


def _as_job(letter: DeadLetter, handler: str) -> Message:
    """A record that runs again; sent twice, it is known by its id."""
    id = derived_id("redrive", letter.id, letter.died_at)
    return Message(
        id,
        letter.body,
        letter.raw_headers,
        letter.key,
        letter.at,
        handler,
        remember=STREAM_SENT,
        origin=letter.position,
    )


def _not_kept(letter: DeadLetter) -> str:
    remedy = "Purge it; it cannot run again."
    return wrong(
        letter.id,
        "a dead letter whose record is still in its topic",
        f"one of which {letter.missing}",
        remedy,
    )


def describe_counts(counts: Mapping[str, Counts]) -> str:
    """One line for the log: every handler's numbers, without the zeros."""
    shown = {
        name: " ".join(f"{what} {n}" for what, n in asdict(one).items() if n)
        for name, one in sorted(counts.items())
    }
    return (
        ", ".join(f"{name}: {text or 'nothing'}" for name, text in shown.items())
        or "nothing handled"
    )
