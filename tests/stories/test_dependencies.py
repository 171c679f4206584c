"""What dependencies see of a failure, however it comes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Annotated

import pytest

from busline import App, Depends, Retry, Topic
from busline.app import Setting
from busline.core.ports import Transport
from busline.runtime.engines import Engines
from busline.testing.clock import SimClock
from busline.transports.memory import MemoryTransport
from tests.stories.conftest import Tell
from tests.stories.test_streams import Item

one_lane = Topic("one", Item, partitions=1)
Dependency = Callable[..., AsyncGenerator[str]]


def nested(log: list[str]) -> Dependency:
    """A session within a connection; each notes how it ends."""

    async def connection() -> AsyncGenerator[str]:
        try:
            yield "connection"
        except BaseException as error:  # whatever ends the function is noted, and goes on
            log.append(f"connection {type(error).__name__}")
            raise
        finally:
            log.append("connection closed")

    async def session(of: Annotated[str, Depends(connection)]) -> AsyncGenerator[str]:
        try:
            yield "session"
        except BaseException as error:  # whatever ends the function is noted, and goes on
            log.append(f"session {type(error).__name__}")
            raise
        finally:
            log.append("session closed")

    return session


ENDS = ["session {0}", "session closed", "connection {0}", "connection closed"]


@pytest.mark.parametrize("how", ["error", "own cancellation", "timeout"])
async def test_each_sees_the_failure_once_the_innermost_first(tell: Tell, how: str) -> None:
    app, log = App("a"), list[str]()
    session, begun = nested(log), asyncio.Event()

    @app.subscriber(one_lane, retry=Retry(1), timeout=5)
    async def handle(item: Item, session: Annotated[str, Depends(session)]) -> None:
        begun.set()
        if how == "error":
            raise ValueError
        if how == "own cancellation":
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    async with tell(app) as story:
        await app.publish(one_lane, Item(n=1))
        await begun.wait()
        if how == "timeout":
            story.clock.move(5.1)
        await story.settled()

        kind = "ValueError" if how == "error" else "CancelledError"
        assert log == [end.format(kind) for end in ENDS]
        assert len(await story.dead()) == 1


async def test_each_is_closed_when_the_app_is_stopped() -> None:
    app, log, clock = App("a"), list[str](), SimClock()
    session, begun = nested(log), asyncio.Event()

    @app.subscriber(one_lane)
    async def handle(item: Item, session: Annotated[str, Depends(session)]) -> None:
        begun.set()
        await asyncio.Event().wait()

    transport: Transport = MemoryTransport(clock)
    running = app.running_with(Setting(Engines(transport, transport), clock, drain=1.0, cancel=1.0))
    await running.__aenter__()
    await app.publish(one_lane, Item(n=1))
    await begun.wait()
    leaving = asyncio.ensure_future(running.__aexit__(None, None, None))
    for _ in range(50):
        await asyncio.sleep(0.001)
    clock.move(1.1)
    await leaving

    assert log == [end.format("CancelledError") for end in ENDS]
    assert [one.behind for one in await transport.inspector.lag()] == [1]
