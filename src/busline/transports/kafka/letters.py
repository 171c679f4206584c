"""Dead letters: a topic for each group on each topic, compacted, one record for each letter until
it is purged."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from contextlib import aclosing

from aiokafka import TopicPartition

from busline.core.address import DEAD, Address
from busline.core.clock import Clock
from busline.core.errors import BuslineError, Invalid, Unavailable, wrong
from busline.core.message import DeadLetter, Delivery
from busline.core.outcome import Rejected
from busline.core.served import Served
from busline.transports.kafka.admin import Admin
from busline.transports.kafka.diagnosis import told, within
from busline.transports.kafka.letter import (
    LARGE,
    completed,
    forms,
    key_of,
    may_hold,
    mended,
    origin_of,
    place_of,
    shown_of,
    slot_of,
    topic_for,
)
from busline.transports.kafka.producer import Producer
from busline.transports.kafka.shelf import READING, Log, Shelf, Slot
from busline.transports.kafka.wire import Record

log = logging.getLogger("busline")
GONE = 5.0  # seconds between looks whether the topic of a letter is still there
BATCH = 1000


class Letters:
    """Written and confirmed before the group passes the record."""

    def __init__(
        self,
        admin: Admin,
        producer: Producer,
        servers: Sequence[str],
        clock: Clock,
        patience: float,
    ) -> None:
        self._admin, self._producer, self._clock, self._patience = admin, producer, clock, patience
        self.log = Log(admin, servers)
        self._made: set[str] = set()
        self._shelves: dict[str, Shelf] = {}

    # --- writing -----------------------------------------------------------------------------

    async def write(self, group: str, delivery: Delivery, outcome: Rejected) -> None:
        """Returns when it is confirmed, however long that takes. Raises Unavailable where it cannot
        be now."""
        topic = topic_for(group, delivery.address)
        if topic not in self._made:
            await self._make(topic, delivery.address)
        refused = ""
        for record, compress in forms(group, delivery, outcome, self._clock.time()):
            try:
                return await self._confirmed(topic, delivery.address, record, compress)
            except Invalid as error:
                refused = str(error)
        raise Unavailable(
            wrong(
                topic,
                "a topic that takes dead letters",
                f"a refusal ({refused})",
                "Correct its settings.",
            )
        )

    async def _make(self, topic: str, source: str) -> None:
        with told(topic):
            await self._admin.ensure(Address("topic", topic, 1, compact=True), source)
        self._made.add(topic)

    async def _confirmed(self, topic: str, source: str, record: Record, compress: bool) -> None:
        await self._producer.open()
        writing = asyncio.ensure_future(
            self._producer.write(topic, {0: [record]}, compress=compress)
        )
        try:
            while not (await asyncio.wait((writing,), timeout=GONE))[0]:
                await self._make(topic, source)
        finally:
            writing.cancel()
        await writing

    async def purge(self, ids: Iterable[str]) -> int:
        """Raises Unavailable where not all that are there are known to be gone."""
        wanted = set(ids)
        topics = {place[0] for one in wanted if (place := place_of(one)) is not None} & set(
            await self._topics()
        )
        count, at = 0, int(self._clock.time() * 1000)
        await self._producer.open()
        for topic in sorted(topics):
            gone = [one for one in await self._look(topic) if one.id in wanted]
            for start in range(0, len(gone), BATCH):
                parts = defaultdict[int, list[Record]](list)
                for one in gone[start : start + BATCH]:
                    parts[one.place.partition].append((at, key_of(one.id), None, []))
                async with within(topic, self._patience):
                    await self._producer.write(topic, parts)
            count += len(gone)
        return count

    async def mend(self, id: str, body: bytes) -> bool:
        """The same letter, with another body. Raises Unavailable where it is not known to be
        written."""
        slots = await self.find(id)
        for whole in await self.whole(slots):
            async with (
                within(id, self._patience),
                aclosing(self.log.pick({slots[0].place: [slots[0].offset]})) as records,
            ):
                async for record in records:
                    await self._producer.open()
                    await self._producer.write(
                        slots[0].place.topic,
                        {slots[0].place.partition: [mended(record, whole, body)]},
                        compress=len(body) > LARGE,
                    )
                    return True
        return False

    # --- reading -----------------------------------------------------------------------------

    async def standing(self, served: Container[Served] | None = None) -> list[Slot]:
        """All that stand, oldest first; or of these topics and groups. What cannot be asked is said
        in the log."""
        found = list[Slot]()
        for topic in await self._topics():
            if served is None or may_hold(topic, served):
                try:
                    found += await self._look(topic)
                except BuslineError as error:
                    log.warning("what '%s' holds is not known now: %s", topic, error)
        return sorted(
            (one for one in found if served is None or one.served in served),
            key=lambda one: one.died_at,
        )

    async def find(self, id: str) -> list[Slot]:
        """The one with this id, if it stands. Raises Unavailable where that is not known."""
        place = place_of(id)
        if place is None or place[0] not in await self._topics():
            return []
        return [one for one in await self._look(place[0]) if one.id == id]

    async def whole(self, slots: Sequence[Slot]) -> list[DeadLetter]:
        """The letters themselves; those that were purged meanwhile are left out."""
        found = dict[str, DeadLetter]()
        places = defaultdict[TopicPartition, list[int]](list)
        for slot in slots:
            places[slot.place].append(slot.offset)
        with told("dead letters"):
            async with asyncio.timeout(READING), aclosing(self.log.pick(places)) as records:
                async for record in records:
                    if record.value is not None and (shown := shown_of(record)) is not None:
                        found[shown.id] = shown
        found |= await self._from_their_topics([one for one in found.values() if one.missing])
        return [found[one.id] for one in slots if one.id in found]

    async def _from_their_topics(self, letters: Sequence[DeadLetter]) -> dict[str, DeadLetter]:
        """With what the letters themselves had no room for, as far as it is still there."""
        found = dict[str, DeadLetter]()
        for letter in letters:
            place, offset = origin_of(letter)
            try:
                with told(letter.address):
                    async with (
                        asyncio.timeout(READING),
                        aclosing(self.log.pick({place: [offset]})) as records,
                    ):
                        async for record in records:
                            found[letter.id] = completed(letter, record)
            except BuslineError as error:
                log.warning("%s: %s", letter.id, error)
        return found

    async def _topics(self) -> list[str]:
        with told("dead letters"):
            return sorted(one for one in await self._admin.topics() if one.endswith(DEAD))

    async def _look(self, topic: str) -> list[Slot]:
        shelf = self._shelves.setdefault(topic, Shelf(self.log, topic))
        with told(topic):
            async with asyncio.timeout(READING):
                return await shelf.look(slot_of)
