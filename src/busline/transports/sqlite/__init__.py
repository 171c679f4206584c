"""The embedded engine: topics and queues in one file, for every process on this machine that opens it."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, Self, TypeVar

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock, Timer
from busline.core.errors import Unavailable
from busline.core.message import Delivery, Message
from busline.core.outcome import Effect, Keep, Outcome, Send
from busline.core.ports import Features, Host, Receiver, Subscription
from busline.transports.sqlite import jobs, topics
from busline.transports.sqlite.facts import SqliteStore, keep
from busline.transports.sqlite.file import Busy, File, Operation
from busline.transports.sqlite.inspector import SqliteInspector
from busline.transports.sqlite.process import Process, remove
from busline.transports.sqlite.receiver import JobReceiver, LogReceiver

log = logging.getLogger("busline")
T = TypeVar("T")
LOOK = 1.0
PATIENCE = 10.0


class SqliteTransport:
    """`sync="full"`: a commit survives a power cut; "normal": it survives any kill. `lease`: seconds after which a
    process that does not move is taken for dead."""

    features = Features(topics=True, queues=True, durable=True)

    def __init__(self, path: str | Path, *, sync: Literal["normal", "full"] = "normal", lease: float = 20.0, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.process = Process(Path(path))
        self.file = File(Path(path), sync, self._beat)
        self.store = SqliteStore(self)
        self.inspector = SqliteInspector(self)
        self.receivers: list[JobReceiver | LogReceiver] = []
        self._lease = lease
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None
        self._turn = 0

    def __repr__(self) -> str:
        return f"<SqliteTransport {self.file.path}, process {self.process.n}>"

    def _beat(self) -> None:
        self.process.beat()

    async def __aenter__(self) -> Self:
        await patiently(self.file.open)
        try:
            await self._patiently(self.process.register)
        except BaseException:
            await self.file.close()
            raise
        self._listen()
        self._look_later()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            await asyncio.wait((self._looking,))
        asyncio.get_running_loop().remove_reader(self.process.pipe)
        try:
            await self.file.write(self.process.withdraw)
        except Unavailable as error:
            log.warning("%s: %s The next process that looks cleans up.", self.file.path, error)
        self.process.close()
        await self.file.close()

    async def _patiently(self, operation: Operation[T]) -> T:
        """A caller's write."""
        return await patiently(lambda: self.file.write(operation))

    # --- publishing ----------------------------------------------------------------------------------------

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        now = self.clock.time()
        there: Mapping[int, str] = await self._patiently(lambda db: self._add(db, address, messages, now))
        self.wake()
        return there

    def _add(self, db: sqlite3.Connection, address: Address, messages: Sequence[Message], now: float) -> Mapping[int, str]:
        if address.kind == "queue":
            return jobs.insert(db, address.name, messages, now)
        self._turn += len(messages)
        topics.append(db, address, messages, self._turn)
        return {}

    def apply(self, db: sqlite3.Connection, effects: Sequence[Effect], now: float) -> None:
        """What an outcome carries, inside its transaction."""
        for effect in effects:
            if isinstance(effect, Send):
                self._add(db, effect.address, [effect.message], now)
            else:
                keep(db, effect.key, effect.value, now + effect.ttl)

    def settled(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Wakes whoever waits for what these outcomes carried."""
        effects = [one for _, outcome in settled for one in getattr(outcome, "effects", ())]
        if effects or any(type(outcome).__name__ in ("Retried", "Released") for _, outcome in settled):
            self.wake()
        self.store.arrived({one.key: one.value for one in effects if isinstance(one, Keep)})

    # --- waking --------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something changed that others may wait for: here, and in the other processes."""
        self._wake_here()
        self.process.wake_others()

    def _wake_here(self) -> None:
        for receiver in self.receivers:
            receiver.woken.set()

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.process.pipe, self._heard)

    def _heard(self) -> None:
        self.process.drain()
        self._wake_here()
        self.store.look_again()

    # --- looking after the others, once a second -------------------------------------------------------------

    def _look_later(self) -> None:
        self._timer = self.clock.after(LOOK, self._start_looking)

    def _start_looking(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="busline sqlite look")

    async def _look(self) -> None:
        with suppress(Unavailable):  # whoever works with the file says so
            await self._look_once()
        self._heard()
        self._look_later()

    async def _look_once(self) -> None:
        others = await self.file.read(lambda db: [row[0] for row in db.execute("SELECT n FROM worker")])
        if self.process.n not in others:
            await self.lost()
        dead = self.process.dead([n for n in others if n != self.process.n], self._lease)
        now = self.clock.time()
        if dead:
            await self.file.write(lambda db: jobs.free_all(db, dead, now))
            for n in dead:
                remove(self.process.folder, n)
            log.warning("took over what %d dead process(es) had in hand", len(dead))
            self.wake()
        await self.store.expire(now)

    async def lost(self) -> None:
        """This process was taken for dead: what it has in hand is others' now. It goes on under a new number."""
        if await self.file.read(lambda db: db.execute("SELECT 1 FROM worker WHERE n = ?", (self.process.n,)).fetchone()):
            return
        log.warning("this process stood still for too long and was taken for dead: what it had in hand runs elsewhere")
        for receiver in self.receivers:
            receiver.host.recall(receiver.forget())
        asyncio.get_running_loop().remove_reader(self.process.pipe)
        self.process.close()
        await self.file.write(self.process.register)
        self._listen()
        self._wake_here()

    # --- receiving -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        receiver = await self._receiver(subscription, host)
        self.receivers.append(receiver)
        try:
            yield receiver
        finally:
            try:
                await receiver.leave()
            except Unavailable as error:
                log.warning("%s What was in hand is given back when this process ends.", error)
            self.receivers.remove(receiver)
            self.wake()

    async def _receiver(self, subscription: Subscription, host: Host) -> JobReceiver | LogReceiver:
        if subscription.group is None:
            return JobReceiver(self, subscription, host)
        group, addresses, start = subscription.group, subscription.addresses, subscription.start
        await self._patiently(lambda db: topics.join_all(db, group, addresses, start))
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
