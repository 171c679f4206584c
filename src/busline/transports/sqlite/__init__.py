"""The embedded engine: topics and queues in one file, for every process on this machine that opens
it."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock
from busline.core.errors import BuslineError
from busline.core.message import Message
from busline.core.ports import Features, Host, Receiver, Subscription
from busline.transports.sqlite import jobs, topics
from busline.transports.sqlite.effects import Effects
from busline.transports.sqlite.facts import SqliteStore
from busline.transports.sqlite.file import File
from busline.transports.sqlite.inspector import SqliteInspector
from busline.transports.sqlite.job_receiver import JobReceiver
from busline.transports.sqlite.log_receiver import LogReceiver
from busline.transports.sqlite.neighbours import Neighbours
from busline.transports.sqlite.opening import Sync
from busline.transports.sqlite.process import Process
from busline.transports.sqlite.receiving import Parts
from busline.transports.sqlite.session import Session, patiently

log = logging.getLogger("busline")


class SqliteTransport:
    """`sync="full"`: a commit survives a power cut; "normal": it survives any kill. `lease`:
    seconds after which a process that does not move is taken for dead."""

    features = Features(topics=True, queues=True, durable=True)
    system, server = "sqlite", None

    def __init__(
        self,
        path: str | Path,
        *,
        sync: Sync = "normal",
        lease: float = 20.0,
        clock: Clock | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.process = Process(Path(path))
        self.file = File(Path(path), sync, self.process.beat)
        self.session = Session(self.file, self.process, self.clock)
        self.store = SqliteStore(self.session)
        self.inspector = SqliteInspector(self.session)
        self.neighbours = Neighbours(self.session, self.store, lease)
        self._effects = Effects(self.session, self.store)

    def __repr__(self) -> str:
        return f"<SqliteTransport {self.file.path}, process {self.process.n}>"

    async def __aenter__(self) -> Self:
        await patiently(self.file.open)
        try:
            await self.neighbours.begin()
        except BaseException:  # cancelled or refused, nothing stays open
            await self.file.close()
            self.process.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.neighbours.rest()
            n = self.process.n
            await self.file.write(lambda db: jobs.withdraw(db, n))
        except BuslineError as error:
            log.warning(
                "%s The next process that looks gives back what this one had in hand.", error
            )
        finally:
            self.neighbours.deafen()
            await self.file.close()
            self.process.wake_others()
            self.process.close()

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        now = self.clock.time()
        there: Mapping[int, str] = await self.session.patiently(
            lambda db: self._effects.add(db, address, messages, now)
        )
        self.session.wake()
        return there

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        receiver = await self._receiver(subscription, host)
        self.session.receivers.append(receiver)
        try:
            yield receiver
        finally:
            try:
                await receiver.leave()
            except BuslineError as error:
                log.warning("%s What was in hand is given back when this process ends.", error)
            finally:
                self.session.receivers.remove(receiver)
            self.session.wake()

    async def _receiver(self, subscription: Subscription, host: Host) -> JobReceiver | LogReceiver:
        parts = Parts(self.session, self._effects, self.neighbours)
        if subscription.group is None:
            return JobReceiver(parts, subscription, host)
        group, addresses, start = subscription.group, subscription.addresses, subscription.start
        await self.session.patiently(lambda db: topics.join_all(db, group, addresses, start))
        return LogReceiver(parts, subscription, host)
