"""The embedded engine: topics and queues in one file, for every process on this machine that opens
it."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, Self, TypeVar

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock, Timer
from busline.core.errors import BuslineError, Unavailable
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, Effect, Keep, Send, Settled
from busline.core.ports import Features, Host, Receiver, Subscription
from busline.transports.sqlite import jobs, topics
from busline.transports.sqlite.facts import SqliteStore, keep
from busline.transports.sqlite.file import Busy, File, Operation
from busline.transports.sqlite.inspector import SqliteInspector
from busline.transports.sqlite.jobs import Impossible
from busline.transports.sqlite.process import Process, remove
from busline.transports.sqlite.receiver import JobReceiver, LogReceiver

log = logging.getLogger("busline")
T = TypeVar("T")
LOOK = 1.0
PATIENCE = 10.0


class SqliteTransport:
    """`sync="full"`: a commit survives a power cut; "normal": it survives any kill. `lease`:
    seconds after which a process that does not move is taken for dead."""

    features = Features(topics=True, queues=True, durable=True)
    system, server = "sqlite", None

    def __init__(
        self,
        path: str | Path,
        *,
        sync: Literal["normal", "full"] = "normal",
        lease: float = 20.0,
        clock: Clock | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.process = Process(Path(path))
        self.file = File(Path(path), sync, self._beat)
        self.store = SqliteStore(self)
        self.inspector = SqliteInspector(self)
        self.receivers: list[JobReceiver | LogReceiver] = []
        self.withheld = False  # a receiver waits until nothing else is in hand
        self._lease = lease
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None
        self._turn = 0
        self._ear = -1  # the pipe that the loop listens to
        self._closing = False
        self._renewing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<SqliteTransport {self.file.path}, process {self.process.n}>"

    def _beat(self) -> None:
        self.process.beat()

    async def __aenter__(self) -> Self:
        await patiently(self.file.open)
        self._closing, self._renewing = False, asyncio.Lock()
        try:
            await self.patiently(self.process.register)
            with suppress(BuslineError, OSError):  # then the first look does it
                # at once: it may be the only one, and killed again before that
                await self._look_for_dead()
        except BaseException:  # cancelled or refused, nothing stays open
            await self.file.close()
            self.process.close()
            raise
        self._listen()
        self._look_later()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._looking is not None:
                await asyncio.wait((self._looking,))
            n = self.process.n
            await self.file.write(lambda db: jobs.withdraw(db, n))
        except BuslineError as error:
            log.warning(
                "%s The next process that looks gives back what this one had in hand.", error
            )
        finally:
            self._deafen()
            await self.file.close()
            self.process.wake_others()
            self.process.close()

    async def patiently(self, operation: Operation[T]) -> T:
        """A caller's write."""
        return await patiently(lambda: self.file.write(operation))

    # --- publishing --------------------------------------------------------------------------

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        now = self.clock.time()
        there: Mapping[int, str] = await self.patiently(
            lambda db: self._add(db, address, messages, now)
        )
        self.wake()
        return there

    def _add(
        self, db: sqlite3.Connection, address: Address, messages: Sequence[Message], now: float
    ) -> Mapping[int, str]:
        if address.kind == "queue":
            return jobs.insert(db, address.name, messages, now)
        self._turn += len(messages)
        topics.append(db, address, messages, self._turn)
        return {}

    def apply(
        self, db: sqlite3.Connection, delivery: Delivery, effects: Sequence[Effect], now: float
    ) -> None:
        """What an outcome carries, inside its transaction. Raises Impossible for what can never be
        applied."""
        try:
            for effect in effects:
                if isinstance(effect, Send):
                    self._add(db, effect.address, [effect.message], now)
                else:
                    keep(db, effect.key, effect.value, now + effect.ttl)
        except (ValueError, OverflowError) as error:  # Invalid is one
            raise Impossible(delivery, error) from error

    def settled(self, settled: Sequence[Settled]) -> None:
        """Wakes whoever waits for what these outcomes carried."""
        rich = [outcome for _, outcome in settled if outcome is not ACKED]
        effects = [effect for outcome in rich for effect in outcome.effects]
        if effects or not all(outcome.final for outcome in rich):
            self.wake()
        self.store.arrived({one.key: one.value for one in effects if isinstance(one, Keep)})

    def queues(self) -> list[str]:
        """What this process takes jobs from."""
        return [
            queue
            for receiver in self.receivers
            if isinstance(receiver, JobReceiver)
            for queue in receiver.queues
        ]

    # --- waking ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something changed that others may wait for: here, and in the other processes."""
        self.wake_here()
        self.process.wake_others()

    def wake_here(self) -> None:
        for receiver in self.receivers:
            receiver.woken.set()

    def _listen(self) -> None:
        self._ear = self.process.pipe
        asyncio.get_running_loop().add_reader(self._ear, self._heard)

    def _deafen(self) -> None:
        if self._ear >= 0:
            asyncio.get_running_loop().remove_reader(self._ear)
            self._ear = -1

    def _heard(self) -> None:
        if self._ear >= 0:
            self.process.drain()
        self.wake_here()
        self.store.look_again()

    # --- looking after the others, once a second ---------------------------------------------

    def _look_later(self) -> None:
        if not self._closing:
            self._timer = self.clock.after(LOOK, self._start_looking)

    def _start_looking(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(
            self._look(), name="busline sqlite look"
        )

    async def _look(self) -> None:
        with suppress(BuslineError, OSError):  # whoever works with the file says so
            if self.file.replaced():
                await self._take_other_file()
            await self._look_once()
        self._heard()
        self._look_later()

    async def _look_once(self) -> None:
        await self._look_for_dead()
        await self.store.expire(self.clock.time())

    async def _look_for_dead(self) -> None:
        others = await self.file.read(
            lambda db: [row[0] for row in db.execute("SELECT n FROM worker")]
        )
        if self.process.n not in others:
            await self.lost()
        dead = self.process.dead([n for n in others if n != self.process.n], self._lease)
        if dead:
            await self._clear_away(dead)

    async def _clear_away(self, dead: Mapping[int, bool]) -> None:
        now = self.clock.time()
        freed = await self.file.write(lambda db: jobs.free_all(db, dead, now))
        for n in dead:
            remove(self.process.folder, n)
        for n in freed:
            log.warning(
                "took over what process %d had in hand, which %s",
                n,
                "died" if dead[n] else "stands still",
            )
        self.wake()

    async def _take_other_file(self) -> None:
        """Goes on with the file that is at the path now. What is in hand was the other's: here it
        has another number."""
        async with self._renewing:
            log.warning(
                "%s: another file is there now: what was in hand is the other's, and it goes on"
                " with this one",
                self.file.path,
            )
            await self.file.close()
            for receiver in self.receivers:
                receiver.host.recall(receiver.forget())
            self._deafen()
            self.process.close()
            await self.file.open()
            await self._renew()

    async def _renew(self) -> None:
        await self.file.write(self.process.register)
        self._listen()
        self.wake_here()

    async def look_lost(self) -> None:
        """As `lost`, for one who need not wait: the next look does it if the file is locked now."""
        with suppress(Unavailable):
            await self.lost()

    async def lost(self) -> None:
        """This process was taken for dead: what it has in hand is others' now. It goes on under a
        new number."""
        async with self._renewing:
            n = self.process.n
            if await self.file.read(lambda db: jobs.alive(db, n)):
                return
            log.warning(
                "this process stood still for too long and was taken for dead: what it had in hand"
                " runs elsewhere"
            )
            for receiver in self.receivers:
                receiver.host.recall(receiver.forget())
            self._deafen()
            await self._renew()

    # --- receiving ---------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        receiver = await self._receiver(subscription, host)
        self.receivers.append(receiver)
        try:
            yield receiver
        finally:
            try:
                await receiver.leave()
            except BuslineError as error:
                log.warning("%s What was in hand is given back when this process ends.", error)
            finally:
                self.receivers.remove(receiver)
            self.wake()

    async def _receiver(self, subscription: Subscription, host: Host) -> JobReceiver | LogReceiver:
        if subscription.group is None:
            return JobReceiver(self, subscription, host)
        group, addresses, start = subscription.group, subscription.addresses, subscription.start
        await self.patiently(lambda db: topics.join_all(db, group, addresses, start))
        return LogReceiver(self, subscription, host)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks again while the file is locked, ten seconds at most."""
    limit = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await ask()
        except Busy:
            if asyncio.get_running_loop().time() > limit:
                raise
            await asyncio.sleep(0.01)
