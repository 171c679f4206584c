"""Callers in the order in which they came."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from busline.core.errors import BuslineError

T = TypeVar("T")


class Turn:
    """One after the other; whoever waited while another failed has failed with it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failed: tuple[float, BuslineError] | None = None

    async def take(self, work: Callable[[], Awaitable[T]]) -> T:
        arrived = time.monotonic()
        async with self._lock:
            if self._failed is not None and self._failed[0] >= arrived:
                raise self._failed[1]
            try:
                return await work()
            except BuslineError as error:
                self._failed = time.monotonic(), error
                raise
