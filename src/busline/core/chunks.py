"""What is sent at once of very many: bounded in number and in bytes."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeVar

from busline.core.ports import BATCH_BYTES

T = TypeVar("T")
CHUNK = 1000


async def chunks(things: AsyncIterable[T] | Iterable[T], size: Callable[[T], int]) -> AsyncIterator[list[T]]:
    """A thousand at a time; fewer, where they come to 4 MiB before. `size`: the bytes of one."""
    chunk: list[T] = []
    left = BATCH_BYTES
    async for thing in _each(things):
        chunk.append(thing)
        left -= size(thing)
        if left <= 0 or len(chunk) == CHUNK:
            yield chunk
            chunk, left = [], BATCH_BYTES
    if chunk:
        yield chunk


async def _each(things: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    if isinstance(things, AsyncIterable):
        async for thing in things:
            yield thing
    else:
        for thing in things:
            yield thing
