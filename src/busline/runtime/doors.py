"""Engines that are opened when they are first needed, by whoever needs them, and closed
together."""

import asyncio
import time
from contextlib import AsyncExitStack
from contextvars import Context
from types import TracebackType
from typing import Self

from busline.core.errors import Unavailable
from busline.core.ports import Transport

TRY_EVERY = 0.2


class Doors:
    """`patience`: seconds in which an engine that is away may come. What is being opened is shared
    by all who wait for it; one that could not be opened is tried again by the next."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._open: set[Transport] = set()
        self._opening: dict[Transport, asyncio.Task[None]] = {}
        self._stack = AsyncExitStack()

    def __contains__(self, engine: Transport) -> bool:
        return engine in self._open

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for opening in self._opening.values():
            opening.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        await self._stack.__aexit__(kind, error, where)
        self._open.clear()

    async def open(self, engine: Transport) -> None:
        """Returns when it is open. Raises what keeps it from that."""
        if engine in self._open:
            return
        opening = self._opening.get(engine)
        if opening is None:
            opening = self._opening[engine] = asyncio.get_running_loop().create_task(
                self._enter(engine), name="busline open", context=Context()
            )
            opening.add_done_callback(lambda done: self._over(engine, done))
        await asyncio.shield(opening)

    async def _enter(self, engine: Transport) -> None:
        end = time.monotonic() + self._patience
        while True:
            try:
                await self._stack.enter_async_context(engine)
            except Unavailable:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(TRY_EVERY)
            else:
                return self._open.add(engine)

    def _over(self, engine: Transport, opening: "asyncio.Task[None]") -> None:
        del self._opening[engine]
        if not opening.cancelled():
            opening.exception()  # whoever waited may be gone
