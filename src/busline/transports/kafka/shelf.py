"""Looks at logs without a group, and what stands in a topic of dead letters."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from busline.core.served import Served
from busline.transports.kafka import client
from busline.transports.kafka.admin import Admin
from busline.transports.kafka.diagnosis import told

READING = 20.0  # seconds for a look
NEAR = 500  # records between two that are wanted, up to which reading on is cheaper than seeking


class Slot(NamedTuple):
    """A letter that stands, and what is asked of all of them: its record is read when somebody
    wants to see it."""

    id: str
    served: Served
    handler: str
    died_at: float
    place: TopicPartition
    offset: int


class Log:
    """Pieces of logs."""

    def __init__(self, admin: Admin, servers: Sequence[str]) -> None:
        self._admin, self._servers = admin, servers

    async def ends(self, topic: str) -> dict[TopicPartition, int]:
        """Where its partitions end now. Raises LeaderNotAvailableError where one does not say
        so."""
        return await self._admin.end(sorted(await self._admin.logs.leaders([topic])))

    async def read(self, pieces: Sequence[tuple[TopicPartition, int, int]]) -> AsyncGenerator[Any]:
        """The records of each piece, from an offset to before another; what is gone is left out."""
        if not pieces:
            return
        reader = client.consumer(
            self._servers,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=100,
        )
        reader.assign(list({place for place, _, _ in pieces}))
        await client.started(reader)
        try:
            for place, start, end in pieces:
                reader.seek(place, start)
                while await reader.position(place) < end:
                    for record in (await reader.getmany(place, timeout_ms=1000)).get(place, ()):
                        if record.offset < end:
                            yield record
        finally:
            await reader.stop()

    async def last(self, topic: str, limit: int) -> list[Any]:
        """The last records of a topic, the oldest first."""
        with told(topic):
            async with asyncio.timeout(READING):
                ends = await self.ends(topic)
                async with aclosing(
                    self.read(
                        [(place, max(end - limit, 0), end) for place, end in ends.items() if end]
                    )
                ) as records:
                    found = [record async for record in records]
        return sorted(found, key=lambda one: one.timestamp)[-limit:]

    async def pick(self, wanted: Mapping[TopicPartition, Sequence[int]]) -> AsyncGenerator[Any]:
        """The records at these offsets, as far as they are there."""
        for place, offsets in wanted.items():
            chosen = set(offsets)
            async with aclosing(
                self.read([(place, first, last + 1) for first, last in runs(sorted(chosen))])
            ) as records:
                async for record in records:
                    if record.offset in chosen:
                        yield record


class Shelf:
    """One topic of dead letters. Each look reads only what is new."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self._topic = log, topic
        self._next: dict[TopicPartition, int] = {}
        self._slots: dict[bytes, Slot] = {}
        self._lock = asyncio.Lock()

    async def look(self, slot: Callable[[Any], Slot | None]) -> list[Slot]:
        """The last record of each key, but for those that were purged. `slot`: makes one of a
        record, None of others'."""
        async with self._lock:
            ends = await self._log.ends(self._topic)
            # it was made anew
            if any(end < self._next.get(place, 0) for place, end in ends.items()):
                self._next, self._slots = {}, {}
            new = [
                (place, self._next.get(place, 0), end)
                for place, end in ends.items()
                if self._next.get(place, 0) < end
            ]
            async with aclosing(self._log.read(new)) as records:
                async for record in records:
                    self._put(record, slot)
            self._next |= ends
            return list(self._slots.values())

    def _put(self, record: Any, slot: Callable[[Any], Slot | None]) -> None:
        if record.key is not None:
            self._slots.pop(record.key, None)
            if record.value is not None and (found := slot(record)) is not None:
                self._slots[record.key] = found


def runs(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of those that are near each other."""
    found: list[tuple[int, int]] = []
    for one in offsets:
        if found and one - found[-1][1] <= NEAR:
            found[-1] = found[-1][0], one
        else:
            found.append((one, one))
    return found
