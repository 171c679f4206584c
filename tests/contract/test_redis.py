"""Redis passes the contract."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest

from busline.core.ports import Transport
from busline.testing.clock import SimClock
from busline.testing.contract import Open, Queues
from busline.transports.redis import RedisTransport
from tests.servers.redis import Server, redis, shared

__all__ = ["redis", "shared"]


@pytest.fixture
async def engine(clock: SimClock, redis: Server) -> AsyncGenerator[Open]:
    async with AsyncExitStack() as stack:

        async def engine() -> Transport:
            return await stack.enter_async_context(RedisTransport(redis.url, clock=clock))

        yield engine


class TestRedis(Queues):
    pass
