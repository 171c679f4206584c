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
from busline.transports.redis.lease import Lease
from busline.transports.redis.link import Link
from busline.transports.redis.place import place
from busline.transports.redis.producer import Producer
from busline.transports.redis.receiver import QueueReceiver

log = logging.getLogger("busline")


def open_url(url: str, clock: Clock) -> "RedisTransport":
    """A transport for a URL, not yet open. `?namespace=`: what its keys begin with. Raises Invalid
    for a wrong URL."""
    where, _, query = url.partition("?")
    name, _, namespace = query.partition("=")
    if query and (name != "namespace" or not namespace):
        raise Invalid(
            wrong(
                "redis://",
                "?namespace=NAME after the address",
                "another query",
                "Leave it out for 'busline'.",
            )
        )
    return RedisTransport(where, namespace=namespace or "busline", clock=clock)


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
        self.place = place(url)
        self.prefix = f"{{{namespace}}}:"
        self.receivers: list[QueueReceiver] = []
        self.store = RedisStore(self)
        self.inspector = RedisInspector(self)
        self.link = Link(self.place, self.prefix)
        self._seconds = lease
        self.lease = self._new_lease()
        self._producer = Producer(Link(self.place, self.prefix), self.told)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alone: QueueReceiver | None = None

    def __repr__(self) -> str:
        return f"<RedisTransport {self.place} {self.prefix}>"

    @property
    def server(self) -> tuple[str, int] | None:
        return None if self.place.path is not None else (self.place.host, self.place.port)

    def moved(self) -> float | None:
        """The time of a clock that is moved by hand: it stands in for the server's. None of the
        machine's clock."""
        return None if isinstance(self.clock, SystemClock) else self.clock.time()

    def told(self) -> str:
        """Our time, as scripts take it: theirs is the server's, and they see in each call how far
        ours is from that."""
        moved = self.moved()
        return repr(self.clock.time()) if moved is None else f"={moved!r}"

    def _new_lease(self) -> Lease:
        return Lease(self.place, self.prefix, self._seconds, self.told, self._lost)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.link = Link(self.place, self.prefix)
        try:
            await greet(self.link, self.told())
        except BaseException:  # cancelled or refused, no connection stays open
            await self.link.close()
            raise
        self._producer = Producer(Link(self.place, self.prefix), self.told)
        self.lease = self._new_lease()
        self.lease.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.lease.end()
        await self._producer.close()
        await self.store.close()
        await self.inspector.close()
        await self.link.close()
        await asyncio.get_running_loop().run_in_executor(None, self.lease.join)

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
        receiver = QueueReceiver(self, subscription, host)
        await receiver.open()
        self.receivers.append(receiver)
        try:
            yield receiver
        finally:
            self.receivers.remove(receiver)
            self.withhold(receiver, False)
            try:
                await receiver.close()
            except BuslineError as error:
                log.warning(
                    "%s What was in hand is given back when this worker's lease ends.", error
                )

    def _lost(self, worker: str) -> None:
        """From the thread of the lease."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._lost_here, worker)

    def _lost_here(self, worker: str) -> None:
        for receiver in self.receivers:
            receiver.lost(worker)

    # --- what runs alone ---------------------------------------------------------------------

    def may_take(self, receiver: QueueReceiver, limit: int) -> tuple[int, bool]:
        """How much a receiver may ask for, and whether it may take a job that ended two workers:
        nothing else is in hand."""
        if self.held_back(receiver):
            return 0, False
        return limit, not any(one.hand.held for one in self.receivers if one is not receiver)

    def held_back(self, receiver: QueueReceiver) -> bool:
        return self._alone not in (None, receiver)

    def withhold(self, receiver: QueueReceiver, yes: bool) -> None:
        """While a job runs alone, or waits for that, no other receiver of this process takes
        any."""
        before, self._alone = (
            self._alone,
            receiver if yes else None if self._alone is receiver else self._alone,
        )
        if before is not None and self._alone is None:
            for one in self.receivers:
                one.wake()

    def emptied(self) -> None:
        """A receiver has nothing in hand any more."""
        if self._alone is not None:
            self._alone.wake()
