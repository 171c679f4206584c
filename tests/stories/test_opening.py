"""An App that is open is joined by who opens it for sending, and closes when the last has left."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

import pytest

from busline import App, Invalid, Topic
from busline.app import Setting
from busline.runtime.engines import Engines
from busline.testing import in_memory
from busline.transports.memory import MemoryTransport

words = Topic("words", str)


def opened(app: App) -> bool:
    return repr(app).endswith(", open>")


class Slow(MemoryTransport):
    """Opens when it may; tells when somebody tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tried, self.may = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        self.tried.set()
        await self.may.wait()
        return await super().__aenter__()


def slow(app: App) -> Slow:
    transport = Slow()
    app.setting = Setting(Engines(transport, transport))
    return transport


async def test_a_lifespan_that_opens_the_app_runs_in_a_test() -> None:
    app, seen = App("a"), list[str]()

    @app.subscriber(words)
    async def read(word: str) -> None:
        seen.append(word)

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with app:
            yield

    async with in_memory(app) as bus:
        for word in ("one", "two"):  # left, it can be entered again
            async with lifespan():
                await app.publish(words, word)
        await app.publish(words, "three")
        await bus.settled()
        assert seen == ["one", "two", "three"]
    assert not opened(app)


async def test_the_last_to_leave_closes_it() -> None:
    app, left = App("a", streams="memory://", publishes=[words]), list[int]()

    async def send(number: int) -> None:
        async with app:
            for _ in range(number):
                await app.publish(words, "word")
        left.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in (9, 1, 5):
            tasks.create_task(send(number))

    assert sorted(left) == [1, 5, 9] and not opened(app)
    async with app:
        assert opened(app)


@pytest.mark.parametrize("cancelled", [0, 1], ids=["the first", "who joins"])
async def test_whoever_else_opens_it_goes_on_when_one_is_cancelled(cancelled: int) -> None:
    app = App("a", publishes=[words])
    engine = slow(app)
    first = asyncio.create_task(app.__aenter__())
    await engine.tried.wait()
    second = asyncio.create_task(app.__aenter__())
    await asyncio.sleep(0)
    gone, stays = (first, second) if cancelled == 0 else (second, first)

    gone.cancel()
    await asyncio.wait((gone,))
    engine.may.set()
    await stays
    await app.publish(words, "word")
    await app.__aexit__()

    assert gone.cancelled() and not opened(app)


async def test_another_loop_may_not_join() -> None:
    app = App("a", publishes=[words])

    async def elsewhere() -> None:
        async with app:
            pass

    async with in_memory(app):
        with pytest.raises(
            Invalid,
            match="'a': expected an App of this event loop, got one that is open in another",
        ):
            await asyncio.to_thread(asyncio.run, elsewhere())
        assert opened(app)


async def test_who_left_an_app_that_was_closed_meanwhile_does_not_close_the_next() -> None:
    app = App("a", publishes=[words])
    async with in_memory(app):
        await app.__aenter__()

    async with in_memory(app):
        await app.__aexit__()
        assert opened(app)
