"""What a worker makes of an engine that refuses to settle, and of functions that answer a
cancellation with an error."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from busline import App, Retry
from busline.app import Setting
from busline.core.clock import SystemClock
from busline.core.errors import BuslineError, Invalid, Unavailable
from busline.core.message import Delivery
from busline.core.outcome import Outcome, Settlement
from busline.core.ports import Host, Receiver, Subscription
from busline.runtime.engines import Engines
from busline.transports.memory import MemoryTransport

STARTED = asyncio.Event()
app = App("shop", jobs="memory://")


@app.task(retry=Retry(1))
async def stubborn(n: int) -> None:
    STARTED.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise RuntimeError("connection lost") from None


@app.task
async def quick(n: int) -> None: ...


class Refusing(MemoryTransport):
    """Every settle raises."""

    def __init__(self, error: BuslineError) -> None:
        super().__init__(SystemClock())
        self.error = error

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        async with super().subscribe(subscription, host) as receiver:
            yield Unsettled(receiver, self.error)


class Unsettled:
    def __init__(self, inner: Receiver, error: BuslineError) -> None:
        self.receive, self._error = inner.receive, error

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> Settlement:
        raise self._error


def setting(engine: MemoryTransport) -> Setting:
    return Setting(Engines(jobs=engine), SystemClock(), drain=0.05, cancel=0.5)


async def test_a_function_that_answers_the_shutdown_with_an_error_has_not_failed() -> None:
    engine = MemoryTransport(SystemClock())
    async with app.running_with(setting(engine)):
        await stubborn.enqueue(1)
        await STARTED.wait()

    async with engine:
        assert await engine.inspector.dead() == []


class Recalling(MemoryTransport):
    """What it hands out is no longer ours before it has begun."""

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        async with super().subscribe(subscription, host) as receiver:
            receive = receiver.receive

            async def received(limit: int) -> Sequence[Delivery]:
                deliveries = await receive(limit)
                asyncio.get_running_loop().call_soon(host.recall, deliveries)
                return deliveries

            receiver.receive = received  # type: ignore[method-assign]  # of this receiver alone
            yield receiver


async def test_what_is_recalled_before_its_first_step_leaves_its_place() -> None:
    async with app.running_with(setting(Recalling(SystemClock()))):
        await app.enqueue_many(quick.call(n) for n in range(300))
        async with asyncio.timeout(10):
            while (await app.bus().engines.all()[0].inspector.depth())[
                "shop"
            ].waiting or app.bus().workers[0].held:
                await asyncio.sleep(0.001)
        assert app.bus().workers[0].running() == []


async def test_what_ends_the_settling_ends_the_worker() -> None:
    with pytest.raises(Invalid, match="a damaged file"):
        async with app.running_with(setting(Refusing(Invalid("a damaged file")))):
            await quick.enqueue(1)
            async with asyncio.timeout(5):
                await app.ended()


async def test_nothing_is_settled_any_more_when_the_app_is_closed() -> None:
    async with app.running_with(setting(Refusing(Unavailable("away")))):
        await quick.enqueue(1)
        await asyncio.sleep(0.1)

    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("busline")] == []
