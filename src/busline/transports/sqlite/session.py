"""What all parts of one open transport share: the file, this process, and whoever receives here."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from busline.core.clock import Clock
from busline.core.message import Delivery
from busline.core.ports import Host
from busline.transports.sqlite.database import Operation
from busline.transports.sqlite.errors import Busy
from busline.transports.sqlite.file import File
from busline.transports.sqlite.process import Process

T = TypeVar("T")
PATIENCE = 10.0  # seconds for which a caller's write is tried


class Live(Protocol):
    """A receiver, as the others see it. `queues`: what it takes jobs from."""

    host: Host
    woken: asyncio.Event

    @property
    def queues(self) -> Sequence[str]: ...

    def forget(self) -> list[Delivery]:
        """What is in hand, which from now on is not ours."""
        ...


class Session:
    """`withheld`: a receiver waits until nothing else is in hand."""

    def __init__(self, file: File, process: Process, clock: Clock) -> None:
        self.file, self.process, self.clock = file, process, clock
        self.receivers: list[Live] = []
        self.withheld = False

    def __repr__(self) -> str:
        return f"<Session {self.file.path}, process {self.process.n}>"

    async def patiently(self, operation: Operation[T]) -> T:
        """A caller's write: it waits while the file is locked."""
        return await patiently(lambda: self.file.write(operation))

    def queues(self) -> list[str]:
        """What this process takes jobs from."""
        return [queue for receiver in self.receivers for queue in receiver.queues]

    def wake(self) -> None:
        """Something changed that others may wait for: here, and in the other processes."""
        self.wake_here()
        self.process.wake_others()

    def wake_here(self) -> None:
        for receiver in self.receivers:
            receiver.woken.set()

    def disown(self) -> None:
        """What is in hand here is others' now: it is recalled."""
        for receiver in self.receivers:
            receiver.host.recall(receiver.forget())


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
