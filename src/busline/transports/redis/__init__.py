"""Redis, or Valkey: queues for any number of machines."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock
from busline.core.errors import BuslineError, Invalid, wrong
from busline.core.message import Message
from busline.core.ports import Features, Host, Receiver, Subscription
from busline.transports.redis.facts import RedisStore
from busline.transports.redis.greeting import greet
from busline.transports.redis.inspector import RedisInspector
from busline.transports.redis.place import place
from busline.transports.redis.producer import Producer
from busline.transports.redis.receiver import QueueReceiver
from busline.transports.redis.session import Session

log = logging.getLogger("busline")


class RedisTransport:
    """`url`: redis://[user:password@]host[:port][/database], or unix://path. `namespace`: what all
    keys begin with. `lease`: seconds after which a process that does not beat is taken for dead."""

    features = Features(topics=False, queues=True, durable=True)
    system = "redis"

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "busline",
        lease: float = 20.0,
        clock: Clock | None = None,
    ) -> None:
        if not namespace or any(one in namespace for one in "{}") or not namespace.isprintable():
            raise Invalid(
                wrong(
                    "namespace",
                    "printable characters without braces",
                    repr(namespace)[:60],
                    "Choose another name.",
                )
            )
        self.clock: Clock = clock or SystemClock()
        prefix = f"{{{namespace}}}:"
        self.session = Session(place(url), prefix, self.clock, lease, self._on_lost)
        self.store = RedisStore(self.session)
        self.inspector = RedisInspector(self.session)
        self.receivers: list[QueueReceiver] = []
        self._producer = Producer(self.session.new_link(), self.session.told)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<RedisTransport {self.session.place} {self.session.prefix}>"

    @property
    def server(self) -> tuple[str, int] | None:
        place = self.session.place
        return None if place.path is not None else (place.host, place.port)

    async def __aenter__(self) -> Self:
        session, self._loop = self.session, asyncio.get_running_loop()
        session.renew()
        try:
            await greet(session.link, session.told())
        except BaseException:  # cancelled or refused, no connection stays open
            await session.link.close()
            raise
        self._producer = Producer(session.new_link(), session.told)
        session.lease.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.session.lease.end()
        await self._producer.close()
        await self.store.close()
        await self.inspector.close()
        await self.session.link.close()
        await asyncio.get_running_loop().run_in_executor(None, self.session.lease.join)

    # --- sending -----------------------------------------------------------------------------

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        if address.kind != "queue":
            raise Invalid(
                wrong(
                    address.name,
                    "a queue",
                    "a topic",
                    "Redis carries jobs alone: name an engine for streams.",
                )
            )
        return await self._producer.send(address.name, messages)

    # --- receiving ---------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        if subscription.group is not None:
            raise Invalid(
                wrong(
                    subscription.group,
                    "queues",
                    "a group",
                    "Redis carries jobs alone: name an engine for streams.",
                )
            )
        receiver = QueueReceiver(self.session, subscription, host)
        await receiver.open()
        self.receivers.append(receiver)
        self.session.alone.add(receiver)
        try:
            yield receiver
        finally:
            self.receivers.remove(receiver)
            self.session.alone.remove(receiver)
            try:
                await receiver.close()
            except BuslineError as error:
                log.warning(
                    "%s What was in hand is given back when this worker's lease ends.", error
                )

    def _on_lost(self, worker: str) -> None:
        """From the thread of the lease."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._recall, worker)

    def _recall(self, worker: str) -> None:
        for receiver in self.receivers:
            receiver.on_lost(worker)
