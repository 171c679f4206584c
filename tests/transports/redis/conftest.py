"""A server, and transports on it, closed when the test ends."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from busline.core.clock import SystemClock
from busline.testing.contract import Desk
from busline.transports.redis import RedisTransport
from tests.servers.redis import Server, redis, shared

__all__ = ["redis", "shared"]
OpenAt = Callable[..., Awaitable[RedisTransport]]


class RealDesk(Desk):
    """Receivers whose time is the machine's."""

    def __init__(self, transport: RedisTransport) -> None:
        super().__init__(transport, SystemClock())  # type: ignore[arg-type]  # nobody moves it
        self.redis = transport


class Engines:
    """Opens transports, each as another process would."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url, self._stack = url, stack

    async def open(self, url: str = "", lease: float = 20.0) -> RedisTransport:
        return await self._stack.enter_async_context(RedisTransport(url or self.url, lease=lease))

    async def desk(self, url: str = "", lease: float = 20.0) -> RealDesk:
        desk = RealDesk(await self.open(url, lease))
        self._stack.push_async_callback(desk.stack.aclose)
        return desk


@pytest.fixture
async def engines(redis: Server) -> AsyncGenerator[Engines]:
    async with AsyncExitStack() as stack:
        yield Engines(redis.url, stack)
