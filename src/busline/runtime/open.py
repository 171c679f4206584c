"""What lives while an App consumes, and the one task that owns it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from busline.core.depends import Node, in_order
from busline.core.function import innermost
from busline.core.message import Delivery, Message
from busline.runtime.bus import Bus
from busline.runtime.elsewhere import Elsewhere
from busline.runtime.exits import contained
from busline.runtime.watchdog import Watchdog
from busline.runtime.work import Work
from busline.runtime.worker import Worker

log = logging.getLogger("busline")


@dataclass(slots=True)
class Plan:
    """What an open App does besides sending."""

    works: Sequence[Work] = ()
    app_nodes: Sequence[Node] = ()
    shared: dict[Node, object] = field(default_factory=dict)
    lifespan: Callable[[], AbstractAsyncContextManager[object]] | None = None


@asynccontextmanager
async def consuming(
    bus: Bus, plan: Plan, drain: float, cancel: float
) -> AsyncGenerator["Consuming"]:
    """Lifespan, then app-scoped dependencies, then the workers; left in the opposite order,
    drained."""
    async with AsyncExitStack() as stack:
        if plan.lifespan is not None:
            bus.note("the lifespan")
            await stack.enter_async_context(plan.lifespan())
        await _open_shared(bus, plan, stack)
        bus.note(f"{', '.join(work.name for work in plan.works)} to receive")
        stack.enter_context(Watchdog())
        stack.enter_context(contained())
        bus.workers = [_worker(bus, work) for work in plan.works]
        async with Consuming(bus.workers, drain, cancel) as living:
            await _compare_partitions(plan.works)
            yield living
    plan.shared.clear()


async def _open_shared(bus: Bus, plan: Plan, stack: AsyncExitStack) -> None:
    nobody = Delivery(Message("", None), "", 0, None, None, None)
    for node in in_order(plan.app_nodes):
        bus.note(f"the dependency '{innermost(node.function).__name__}'")
        plan.shared[node] = await node.open(nobody, plan.shared, stack)


def _worker(bus: Bus, work: Work) -> Worker:
    elsewhere = Elsewhere(bus.engines, work.transport)
    return Worker(work, bus.clock, elsewhere, bus.counts, bus.telling)


async def _compare_partitions(works: Sequence[Work]) -> None:
    """Says where a concurrency that was asked for can never be used."""
    for work in works:
        if work.asked is None or work.subscription.order != "partition":
            continue
        names = [address.name for address in work.subscription.addresses]
        found = sum([await work.transport.inspector.partitions(name) for name in names])
        if 0 < found < work.asked:
            log.warning(
                "'%s': of concurrency=%d only %d can be used, for %s has so many partitions",
                work.name,
                work.asked,
                found,
                ", ".join(names),
            )


class Consuming:
    """Workers, running. Entered when each of them receives; left when each has drained."""

    def __init__(self, workers: Sequence[Worker], drain: float, cancel: float) -> None:
        self.workers = workers
        self._drain, self._cancel = drain, cancel
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Consuming":
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(one.run(self._drain, self._cancel), name=f"busline {one.work.name}")
            for one in self.workers
        ]
        ready = loop.create_task(self._all_ready())
        try:
            await asyncio.wait((ready, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            ready.cancel()
            await self.__aexit__()
            raise
        if not ready.done():
            ready.cancel()
            await self.__aexit__()
        return self

    async def _all_ready(self) -> None:
        for worker in self.workers:
            await worker.ready.wait()

    async def ended(self) -> None:
        """Returns when a worker ended by itself, which none does unless its engine is gone for
        good."""
        if self._tasks:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.Event().wait()

    async def __aexit__(self, *_: object) -> None:
        for worker, task in zip(self.workers, self._tasks, strict=True):
            worker.stop.set()
            if not worker.ready.is_set():
                task.cancel()  # its engine may keep it waiting for long
        if self._tasks:
            await asyncio.wait(self._tasks)
        failures = [
            error for task in self._tasks if not task.cancelled() and (error := task.exception())
        ]
        if failures:
            raise failures[0]


class Owner:
    """One task in which everything that lives while an App is open is entered and left, whichever
    tasks ask for it."""

    def __init__(self, body: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._body = body
        self.holders = 1  # who wants it open
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._own(), name="busline owner")

    async def _own(self) -> None:
        try:
            async with self._body() as value:
                self._ready.set_result(value)
                await self._stop.wait()
        except BaseException as error:  # whoever waits for the opening hears of it, whatever it is
            if self._ready.done():
                raise
            if isinstance(error, asyncio.CancelledError):
                self._ready.cancel()
            else:
                self._ready.set_exception(error)

    async def open(self) -> Any:
        """What the body yields. Raises what kept it from opening; cancelled, it closes again."""
        try:
            return await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            if not self._ready.done():
                self._task.cancel()
            await self.close()
            raise

    def is_of_this_loop(self) -> bool:
        return self._ready.get_loop() is asyncio.get_running_loop()

    async def opened(self) -> bool:
        """Whether it opens, for those who did not ask for it first. Waits until that is known."""
        await asyncio.wait((self._ready,))
        return not self._ready.cancelled() and self._ready.exception() is None

    async def close(self) -> None:
        """Leaves the body and waits for it. Raises what went wrong in it."""
        self._stop.set()
        await asyncio.shield(self._task)
