"""What every part of the contract works with."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Self

import pytest

from busline.core.address import Address
from busline.core.clock import Clock
from busline.core.errors import Cause
from busline.core.ids import new_id
from busline.core.message import DeadLetter, Delivery, Message
from busline.core.outcome import ACKED, Acked, Send, Settled
from busline.core.ports import Receiver, Subscription, Transport
from busline.testing.clock import SimClock

ORDERS = Address("topic", "orders", 4)
OTHER = Address("topic", "other", 1)
MAIL = Address("queue", "mail")
POST = Address("queue", "post")
Open = Callable[[], Awaitable[Transport]]


class Recorder:
    """A host that notes what is recalled, and what was missed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.recalled: list[Delivery] = []
        self.gaps = 0
        self.waiting: dict[str, str] = {}
        self.strangers: dict[str, int] = {}

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        self.recalled += deliveries

    def release(self, deliveries: Sequence[Delivery]) -> None: ...

    def missed(self, count: int) -> None:
        self.gaps += count

    def waits(self, place: str, why: str | None) -> None:
        self.waiting.pop(place, None)
        if why is not None:
            self.waiting[place] = why

    def unknown(self, task: str, count: int) -> None:
        self.strangers[task] = self.strangers.get(task, 0) + count


class Desk:
    """Receivers of one transport, left when the test ends, and what they read.

    `mark` ends the names of topics and groups: it keeps one test's from another's on an engine that
    outlives them."""

    def __init__(self, transport: Transport, clock: SimClock, mark: str = "") -> None:
        self.transport, self.clock, self.mark = transport, clock, mark
        self.host = Recorder(clock)
        self.stack = AsyncExitStack()
        self.orders = ORDERS._replace(name=f"orders{mark}")
        self.other = OTHER._replace(name=f"other{mark}")
        self.mail, self.post = MAIL, POST

    def beside(self, transport: Transport) -> Self:
        """Another desk on the same engine."""
        return type(self)(transport, self.clock, self.mark)

    async def read(self, *addresses: Address, group: str = "g", **options: object) -> Receiver:
        subscription = Subscription(addresses or (self.orders,), group + self.mark, **options)  # type: ignore[arg-type]  # a test's options
        return await self.stack.enter_async_context(
            self.transport.subscribe(subscription, self.host)
        )

    async def take(self, *queues: Address, **options: object) -> Receiver:
        subscription = Subscription(queues or (self.mail,), **options)  # type: ignore[arg-type]  # a test's options
        return await self.stack.enter_async_context(
            self.transport.subscribe(subscription, self.host)
        )

    def redriven(self, group: str) -> Address:
        """The queue of a group's dead letters that run again."""
        return Address("queue", f"~{group}{self.mark}")

    async def behind(self, group: str, topic: Address, count: int) -> bool:
        """Whether a group comes to be so many records behind on a topic, within a real 10 s."""
        for _ in range(1000):
            lag = {
                (one.group, one.topic): one.behind for one in await self.transport.inspector.lag()
            }
            if lag.get((group + self.mark, topic.name)) == count:
                return True
            await asyncio.sleep(0.01)
        return False

    def sending(self, *bodies: bytes) -> Acked:
        """An outcome that sends these as jobs."""
        return Acked(tuple(Send(self.post, message(body)) for body in bodies))

    def impossible(self) -> Acked:
        """An outcome whose second send can never be done: the topic has another number of
        partitions."""
        return Acked(
            (Send(self.post, message(b"part")), Send(self.other._replace(partitions=9), message()))
        )


class Contract:
    """What every part needs: a desk on the engine under test. `engine` and `clock` are the
    subclass's fixtures."""

    @pytest.fixture
    def mark(self) -> str:
        return ""

    @pytest.fixture
    async def desk(self, engine: Open, clock: SimClock, mark: str) -> AsyncGenerator[Desk]:
        desk = Desk(await engine(), clock, mark)
        yield desk
        await desk.stack.aclose()


def message(body: bytes = b"{}", **fields: object) -> Message:
    return Message(str(fields.pop("id", "")) or new_id(), body, **fields)  # type: ignore[arg-type]  # a test's fields


async def receive(receiver: Receiver, count: int, limit: int = 100) -> list[Delivery]:
    """Exactly so many deliveries; fails after a real 10 s."""
    found: list[Delivery] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await receiver.receive(min(limit, count - len(found)))
    return found


async def nothing(receiver: Receiver) -> bool:
    """Whether nothing comes within a moment."""
    waiting = asyncio.ensure_future(receiver.receive(10))
    for _ in range(50):
        await asyncio.sleep(0.001)
    waiting.cancel()
    return (await asyncio.gather(waiting, return_exceptions=True))[
        0
    ].__class__ is asyncio.CancelledError


async def ack(receiver: Receiver, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    """Settles them as handled. Returns those that were no longer the receiver's."""
    return await refused(receiver, *((one, ACKED) for one in deliveries))


async def refused(receiver: Receiver, *settled: Settled) -> Sequence[Delivery]:
    """Settles, and returns those that were no longer the receiver's."""
    return (await receiver.settle(settled)).refused


def failed() -> Exception:
    """An error that was raised from another."""
    try:
        raise ValueError("why") from ConnectionError("gone\n\ud800")
    except ValueError as error:
        return error


def is_told(letter: DeadLetter) -> bool:
    """Whether a dead letter tells of `failed()` all there is."""
    ends = (letter.traceback or "").endswith(
        '    raise ValueError("why") from ConnectionError("gone\\n\\ud800")\nValueError: why\n'
    )
    return ends and letter.causes == (Cause("ConnectionError", "gone\n\\ud800"),)


def bodies(deliveries: Sequence[Delivery]) -> list[bytes | None]:
    return [one.body for one in deliveries]
