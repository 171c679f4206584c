"""A server that refuses the login it took before: nothing is lost or dead, and all goes on when it
takes it again."""

import asyncio

import pytest

from busline import App, Topic
from tests.servers.redis import running
from tests.stories.test_streams import Item


@pytest.mark.server
async def test_a_login_that_is_refused_for_a_while_loses_nothing() -> None:
    with running() as server:
        app, done, lane = (
            App("a", streams="memory://", jobs=server.url),
            list[int](),
            Topic("lane", Item, partitions=1),
        )

        @app.task
        async def note(n: int) -> None:
            done.append(n)

        @app.subscriber(lane)
        async def handle(item: Item) -> None:
            await note.enqueue(item.n)

        async with app.running(), asyncio.timeout(20):
            await app.publish(lane, Item(n=1))
            while done != [1]:
                await asyncio.sleep(0.01)
            server.say("CONFIG", "SET", "requirepass", "other")
            server.say_as("other", "CLIENT", "KILL", "TYPE", "normal")
            await app.publish(lane, Item(n=2))
            await asyncio.sleep(0.5)
            assert done == [1]
            server.say_as("other", "CONFIG", "SET", "requirepass", "")
            while done != [1, 2]:
                await asyncio.sleep(0.01)
            assert await app.bus().engines.all()[0].inspector.dead() == []
