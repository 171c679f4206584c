"""Dead letters: a topic for each group on each topic, compacted, one record for each letter until it is purged.

Key: `topic/partition@offset`. Value and headers: those of the record that died; then, as `busline-` headers, the reason
and what else is needed to show it and to run it again.
"""

import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from busline.core.address import Address
from busline.core.clock import Clock
from busline.core.errors import Invalid, Unavailable, cut, describe, wrong
from busline.core.message import DeadLetter, Delivery, Headers
from busline.core.outcome import Rejected
from busline.transports.kafka import client
from busline.transports.kafka.admin import Admin
from busline.transports.kafka.diagnosis import told
from busline.transports.kafka.producer import Producer
from busline.transports.kafka.wire import Record

SUFFIX = ".dead"
MARK = "busline-"
LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def topic_of(group: str, topic: str) -> str:
    """Raises Invalid where that is no name that Kafka takes."""
    name = f"{topic}.{group}{SUFFIX}"
    if not LEGAL.fullmatch(name):
        remedy = "Use letters, digits, '.', '_' and '-': the dead letters' topic is named after both."
        raise Invalid(wrong(group, "a group whose name fits into a topic's", f"{name!r}", remedy))
    return name


def id_of(group: str, position: str) -> str:
    """A letter's id: `group/topic/partition@offset`."""
    return f"{group}/{position}"


def place_of(id: str) -> tuple[str, bytes] | None:
    """The topic and the key of a letter; None for what is no letter's id."""
    group, _, position = id.partition("/")
    topic, slash, _ = position.partition("/")
    return (f"{topic}.{group}{SUFFIX}", position.encode()) if slash else None


class Letters:
    """Written and confirmed before the group passes the record."""

    def __init__(self, admin: Admin, producer: Producer, servers: Sequence[str], clock: Clock) -> None:
        self._admin, self._producer, self._servers, self._clock = admin, producer, servers, clock
        self._made: set[str] = set()

    async def write(self, group: str, delivery: Delivery, outcome: Rejected) -> None:
        """Raises Invalid where it can never be written, Unavailable where it could not be now."""
        topic = topic_of(group, delivery.address)
        if topic not in self._made:
            with told(topic):
                await self._admin.create(Address("topic", topic, 1, compact=True))
            self._made.add(topic)
        try:
            await self._producer.write(topic, {0: [letter(group, delivery, outcome, self._clock.time())]})
        except Unavailable:
            self._made.discard(topic)  # it may be gone
            raise

    async def purge(self, ids: Iterable[str]) -> int:
        there = {one.id for one in await self.read()}
        gone = [one for one in dict.fromkeys(ids) if one in there]
        for id in gone:
            place = place_of(id)
            assert place is not None
            await self._producer.write(place[0], {0: [Record(int(self._clock.time() * 1000), place[1], None, ())]})
        return len(gone)

    async def read(self, id: str | None = None) -> list[DeadLetter]:
        """All that stand, oldest first; or the one with this id."""
        if id is None:
            found = [one for topic in await self._topics() for one in await self._standing(topic)]
            return sorted(found, key=lambda one: one.died_at)
        place = place_of(id)
        if place is None or place[0] not in await self._topics():
            return []
        return [one for one in await self._standing(place[0]) if one.id == id]

    async def _topics(self) -> list[str]:
        with told("dead letters"):
            return sorted(one for one in await self._admin.topics() if one.endswith(SUFFIX))

    async def _standing(self, topic: str) -> list[DeadLetter]:
        """The last record of each key, but for those that were purged."""
        found: dict[bytes, DeadLetter] = {}
        with told(topic):
            async for record in self._records(topic):
                if record.key is None:
                    continue
                shown = None if record.value is None else shown_of(record)
                found.pop(record.key, None)
                if shown is not None:
                    found[record.key] = shown
        return list(found.values())

    async def _records(self, topic: str) -> AsyncGenerator[Any]:
        """Everything up to where the topic ends now."""
        places = await self._admin.places(topic)
        ends = await self._admin.end(places)
        reader = client.consumer(self._servers, auto_offset_reset="earliest", isolation_level="read_committed", fetch_max_wait_ms=100)
        reader.assign(places)
        await client.started(reader)
        try:
            while places := [one for one in places if await reader.position(one) < ends[one]]:
                for records in (await reader.getmany(*places, timeout_ms=1000)).values():
                    for record in records:
                        yield record
        finally:
            await reader.stop()


def letter(group: str, delivery: Delivery, outcome: Rejected, now: float) -> Record:
    message = delivery.message
    kind, text = describe(outcome.error) if outcome.error is not None else (None, None)
    notes = {
        "id": message.id, "group": group, "position": delivery.position, "handler": delivery.handler, "reason": cut(outcome.reason),
        "error-type": kind, "error": text, "attempts": delivery.attempt, "died-at": now, "at": message.at,
        "tombstone": 1 if message.body is None else None,
    }  # fmt: skip
    own: Headers = tuple((MARK + name, str(value).encode("utf-8", "surrogateescape")) for name, value in notes.items() if value is not None)
    if message.key is not None:
        own = (*own, (f"{MARK}key", message.key))
    return Record(int(now * 1000), (delivery.position or "").encode(), message.body or b"", (*message.headers, *own))


def shown_of(record: Any) -> DeadLetter | None:
    """None for a record that nobody here wrote."""
    notes = {name.removeprefix(MARK): value for name, value in record.headers if name.startswith(MARK)}
    if not {"group", "position", "reason", "attempts", "died-at"} <= notes.keys():
        return None
    text = {name: (value or b"").decode("utf-8", "surrogateescape") for name, value in notes.items()}
    position = text["position"]
    return DeadLetter(
        id_of(text["group"], position), position.rpartition("/")[0], text.get("handler", ""), position, notes.get("key"),
        None if "tombstone" in notes else record.value, tuple(one for one in record.headers if not one[0].startswith(MARK)),
        text["reason"], text.get("error-type"), text.get("error"), int(text["attempts"]), float(text["died-at"]),
        float(text.get("at", 0)), text["group"],
    )  # fmt: skip
