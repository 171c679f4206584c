"""What a worker has in hand: how many, how large, and how many of them will hold a thread."""

from collections.abc import Iterable, Mapping

from busline.core.handler import Handler
from busline.core.message import Delivery

MOST = 20_000  # whatever waits for its lane
FULL = 4  # times what one receive may bring, in bytes


class Held:
    """Received and not settled. `buffer`, `size`: deliveries and bytes at which there is no more
    room. `threads`: how many functions run in threads at once; of those that will, no more are
    taken than there are threads."""

    def __init__(
        self, buffer: int, batch_bytes: int, threads: int, handlers: Mapping[str, Handler]
    ) -> None:
        self._buffer, self._full, self._threads = buffer, FULL * batch_bytes, threads
        self._threaded = frozenset(task for task, handler in handlers.items() if handler.threaded)
        self.count = 0
        self._bytes = 0
        self._waiting = 0  # for threads, or in them

    def __repr__(self) -> str:
        return (
            f"<Held {self.count}, {self._bytes} bytes, {self._waiting} for {self._threads} threads>"
        )

    def add(self, deliveries: Iterable[Delivery], sign: int = 1) -> None:
        threaded = self._threaded
        for delivery in deliveries:
            message = delivery.message
            self.count += sign
            self._bytes += sign * len(message.body or b"")
            if threaded and message.task in threaded:
                self._waiting += sign

    def drop(self, deliveries: Iterable[Delivery]) -> None:
        self.add(deliveries, -1)

    def room(self, behind: int) -> int:
        """How many more may be received. The `behind` that wait for their lane take no room from
        what could start."""
        if self._bytes >= self._full:
            return 0
        room = min(self._buffer - (self.count - behind), MOST - self.count)
        return min(room, self._threads - self._waiting) if self._threaded else room
