"""Looks that share a question: one is in the air, and whoever asks meanwhile comes along in the
next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from busline.core.errors import BuslineError, Unavailable
from busline.transports.redis.link import end

T = TypeVar("T")
MOST = 500  # keys in one question


class Together(Generic[T]):
    """`ask` answers the keys in their order: as many of them as its answer has room for, and at
    least one."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Sequence[T]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[str, asyncio.Future[T]]] = []
        self._task: asyncio.Task[None] | None = None

    async def answer(self, key: str) -> T:
        """What is so from now on. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((key, future))
        if self._task is None:
            self._task = loop.create_task(self._answer_all(), name="busline redis looks")
        return await future

    async def _answer_all(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                found = await self._ask([key for key, _ in asked])
            except BuslineError as error:
                refuse(asked, error)
            except BaseException:  # cancelled by the closing: those who wait must hear of it
                refuse(asked, Unavailable("the engine was closed before it answered"))
                self._task = None
                raise
            else:
                self._waiting = [*asked[len(found) :], *self._waiting]
                for (_, future), one in zip(asked, found, strict=False):
                    if not future.done():
                        future.set_result(one)
        self._task = None

    async def close(self) -> None:
        """Whoever still waits hears of it."""
        if self._task is not None:
            await end(self._task)
        refuse(self._waiting, Unavailable("the engine was closed before it answered"))
        self._waiting = []


def refuse(asked: Iterable[tuple[str, "asyncio.Future[T]"]], error: BuslineError) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever waited may be gone
