"""Threads, for functions that would block the loop. Nothing can end a thread: whoever runs one
waits for it."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.to_thread

Key = tuple[str, str]
# nobody waits here: a worker takes no more than it has threads for
FREE = anyio.CapacityLimiter(math.inf)
_held: dict[Key, Future[None]] = {}


def held(key: Key) -> "Future[None] | None":
    """Done when the thread ends that this process still has at work under this key; None where it
    has none."""
    return _held.get(key)


async def in_thread(call: Callable[[], Any], key: Key | None = None) -> Any:
    """What the call returns or raises, in a thread. Cancelled, it waits for the thread all the
    same."""
    ended = Future[None]()
    if key is not None:
        _held[key] = ended

    def end(_: object = None) -> None:
        if not ended.done():
            ended.set_result(None)
            if key is not None and _held.get(key) is ended:
                del _held[key]

    def caught() -> tuple[Any, BaseException | None]:
        try:
            return call(), None
        # an exit that reached the loop by a future would end the loop
        except BaseException as error:
            return None, error
        finally:
            end()

    running = asyncio.ensure_future(anyio.to_thread.run_sync(caught, limiter=FREE))
    running.add_done_callback(end)  # a loop that closes may end it before there is a thread
    try:
        value, error = await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        raise
    if error is not None:
        raise error
    return value
