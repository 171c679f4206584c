"""What is sent at once of very many: bounded in number and in bytes."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

from busline.core.ports import BATCH_BYTES

T = TypeVar("T")
CHUNK = 1000


async def chunks(
    things: AsyncIterable[T] | Iterable[T], size: Callable[[T], int]
) -> AsyncIterator[list[T]]:
    """A thousand at a time; fewer, where they come to 4 MiB before. `size`: the bytes of one."""
    filling = Filling[T]()
    if isinstance(things, AsyncIterable):
        async for thing in things:
            if full := filling.add(thing, size(thing)):
                yield full
    else:
        for thing in things:
            if full := filling.add(thing, size(thing)):
                yield full
    if filling.chunk:
        yield filling.chunk


class Filling(Generic[T]):
    """A chunk that is being filled."""

    def __init__(self) -> None:
        self.chunk: list[T] = []
        self._left = BATCH_BYTES

    def add(self, thing: T, size: int) -> list[T] | None:
        """The chunk, when it is full with this one."""
        self.chunk.append(thing)
        self._left -= size
        if self._left > 0 and len(self.chunk) < CHUNK:
            return None
        full, self.chunk, self._left = self.chunk, [], BATCH_BYTES
        return full
