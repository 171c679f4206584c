"""Looks into the namespace, and steers its dead letters."""

import time
from collections.abc import AsyncIterator, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from busline.core.address import Address
from busline.core.counts import Counts, Whose, read
from busline.core.errors import wrong
from busline.core.message import DeadLetter, Delivery, delivered
from busline.core.ports import Depth, Lag, Look, Redriven, Standing, State, together
from busline.core.served import Served
from busline.transports.redis.envelope import Letter, Packed, mended, text, unpack, unpack_letter
from busline.transports.redis.link import pairs
from busline.transports.redis.producer import special
from busline.transports.redis.session import Session
from busline.transports.redis.together import Together

FEW, SMALL = 1000, 1024 * 1024  # waiting jobs that a look goes through, and bytes of them
PAGE = 200  # dead letters read at a time
YOUNG = 24 * 3600.0  # a job that nobody knows, and whose id is younger, is said to be waiting
COUNTED = (b"running", b"delayed", b"waiting")
STATES: dict[bytes, State] = {
    b"running": "running",
    b"delayed": "delayed",
    b"succeeded": "succeeded",
    b"waiting": "waiting",
}


def is_young(id: str) -> bool:
    """Whether an id is a UUID of version 7 that was made within the last day."""
    plain = id.replace("-", "")
    if len(plain) != 32 or plain[12] != "7":
        return False
    try:
        made = int(plain[:12], 16) / 1000
    except ValueError:
        return False
    return abs(time.time() - made) < YOUNG  # ids are made by the machine's clock


def _readable(envelope: bytes) -> Packed | None:
    """None of bytes that are no envelope."""
    try:
        return unpack(envelope)
    except ValueError:
        return None


def _since(envelope: bytes) -> float | None:
    """When a job was sent, or due; None of bytes that are no envelope."""
    packed = _readable(envelope)
    return None if packed is None else packed.message.since


class RedisInspector:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._looks: Together[Look] = Together(self._look)
        # the letters counted so far, each with its place in their order
        self._stood: dict[bytes, tuple[bytes, Standing]] = {}
        # the letter that was shown last, and where it stood
        self._place: tuple[str, bytes] = "", b"-inf"

    async def look(self, id: str) -> Look:
        """Exact while little waits; else a young id that is nowhere else is said to be waiting."""
        return await self._looks.answer(id)

    async def _look(self, ids: Sequence[str]) -> Sequence[Look]:
        session = self._session
        told = await session.link.look("look", session.told(), FEW, SMALL, *map(text, ids))
        # there may be no room for all
        return [self._seen(id, *one) for id, one in zip(ids, told, strict=False)]

    def _seen(self, id: str, state: bytes, attempt: int, *letter: bytes) -> Look:
        if letter:
            dead = unpack_letter(id, letter[0]).shown
            return Look("failed", dead.attempts, dead)
        if state == b"unseen":
            return Look("waiting" if is_young(id) else "unknown")
        return Look(STATES.get(state, "unknown"), attempt if state in COUNTED else None)

    async def depth(self) -> Mapping[str, Depth]:
        found = await self._session.link.look("depth")
        return {
            name.decode("utf-8", "surrogateescape"): Depth._make((*counts, _since(first)))
            for name, *counts, first in sorted(found)
        }

    async def close(self) -> None:
        await self._looks.close()

    async def peek(self, address: Address, limit: int) -> Sequence[Delivery]:
        if address.kind == "topic":
            return []
        prefix, name = self._session.prefix, address.name
        found: list[bytes] = [
            one
            for kind in ("queue", "suspect")
            for one in await self._line(f"{prefix}{kind}:{name}", limit)
        ]
        due = {
            id: float(at)
            for kind in ("delayed", "retrying")
            for id, at in await self._due(f"{prefix}{kind}:{name}", limit)
        }
        if ids := sorted(due, key=due.__getitem__)[:limit]:
            found += [
                one
                for one in await self._session.link.read("HMGET", f"{prefix}later", *ids)
                if one is not None
            ]
        for task in await self._session.link.read("ZRANGE", f"{prefix}unknown:{name}", 0, limit):
            aside = b"%saside:%d:%s:%s" % (text(prefix), len(text(name)), text(name), task)
            found += [one.partition(b" ")[2] for one in await self._line(aside, limit)]
        return [
            delivered(one.message, name, one.attempts + 1)
            for one in map(_readable, found[:limit])
            if one is not None
        ]

    async def _line(self, key: str | bytes, limit: int) -> list[bytes]:
        found: list[bytes] = await self._session.link.read("LRANGE", key, 0, limit - 1)
        return found

    async def _due(self, key: str, limit: int) -> Iterable[tuple[bytes, bytes]]:
        told = await self._session.link.read("ZRANGE", key, 0, limit - 1, "WITHSCORES")
        return pairs(told).items()

    async def clear(self, queue: str) -> int:
        count = 0
        while gone := await self._session.link.run("clear", text(queue)):
            count += gone
        return count

    async def lag(self, groups: Sequence[str] | None = None) -> Sequence[Lag]:
        return []

    async def partitions(self, topic: str) -> int:
        return 0

    async def counts(self) -> Mapping[Whose, Counts]:
        flat = await self._session.link.read("HGETALL", f"{self._session.prefix}counts")
        found: dict[Whose, Counts] = {}
        for name, n in zip(flat[::2], flat[1::2], strict=True):
            what, _, whose = name.decode("utf-8", "surrogateescape").partition(" ")
            setattr(found.setdefault(read(whose), Counts()), what, int(n))
        return dict(sorted(found.items()))

    async def dead(
        self,
        *,
        served: Container[Served] | None = None,
        handlers: Collection[str] | None = None,
        id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[DeadLetter]:
        found: list[DeadLetter] = []
        async for shown, place in self._shown(id, after):
            if len(found) >= limit:
                break
            if (served is None or shown.served in served) and (
                handlers is None or shown.handler in handlers
            ):
                found.append(shown)
                self._place = (shown.id, place) if place else self._place
        return found

    async def standing(self, served: Container[Served] | None = None) -> Sequence[Standing]:
        await self._count()
        return together(
            one for _, one in self._stood.values() if served is None or one.served in served
        )

    async def _count(self) -> None:
        """Reads the letters that are new since the last look."""
        order = f"{self._session.prefix}dead:order"
        places = pairs(await self._session.link.read("ZRANGE", order, 0, -1, "WITHSCORES"))
        stood = {id: known for id, known in self._stood.items() if places.get(id) == known[0]}
        new = [id for id in places if id not in stood]
        for start in range(0, len(new), PAGE):
            for letter in await self._letters(new[start : start + PAGE]):
                id = text(letter.shown.id)
                stood[id] = places[id], Standing.of(letter.shown)
        self._stood = stood

    async def _shown(self, id: str | None, after: str) -> AsyncIterator[tuple[DeadLetter, bytes]]:
        if id is None:
            async for found in self._all(after):
                yield found
        else:
            for letter in await self._letters([text(id)]):
                yield letter.shown, b""

    async def _all(self, after: str) -> AsyncIterator[tuple[DeadLetter, bytes]]:
        """Every letter behind this one, a page at a time; also where it is gone meanwhile, if it
        was the last one shown."""
        order = f"{self._session.prefix}dead:order"
        last = await self._session.link.read("ZSCORE", order, text(after)) or (
            self._place[1] if self._place[0] == after else b"-inf"
        )
        while page := await self._session.link.read(
            "ZRANGEBYSCORE", order, b"(" + last, "+inf", "WITHSCORES", "LIMIT", 0, PAGE
        ):
            places = pairs(page)
            for letter in await self._letters(page[::2]):
                yield letter.shown, places[text(letter.shown.id)]
            last = page[-1]

    async def _letters(self, ids: Sequence[bytes]) -> list[Letter]:
        dead = f"{self._session.prefix}dead"
        found: list[Any] = await self._session.link.read("HMGET", dead, *ids)
        return [
            unpack_letter(id.decode("utf-8", "surrogateescape"), one)
            for id, one in zip(ids, found, strict=True)
            if one is not None
        ]

    async def redrive(self, ids: Sequence[str], handler: str | None = None) -> Redriven:
        again, refused = 0, []
        for id in ids:
            done = await self._redrive(id, handler)
            if isinstance(done, bytes):
                refused.append(
                    wrong(
                        id,
                        "no living job of the same unique key",
                        f"the job {done.decode()}",
                        "Redrive it when that one is final.",
                    )
                )
            again += done == 1
        return Redriven(again, tuple(refused))

    async def _redrive(self, id: str, handler: str | None) -> Any:
        """1: it runs again. 0: it is gone. Else the id of the job that holds its unique key."""
        letters = await self._letters([text(id)])
        if not letters:
            return 0
        _, message, queue, raw = letters[0]
        name, _, unique, remember, envelope = special(
            replace(message, id=id, due=None, task=handler or message.task), queue
        )
        return await self._session.link.run(
            "redrive", name, queue, unique, remember, envelope if raw is None else raw
        )

    async def mend(self, id: str, body: bytes) -> bool:
        kept = await self._session.link.read("HGET", f"{self._session.prefix}dead", text(id))
        return kept is not None and bool(
            await self._session.link.run("mend", text(id), mended(id, kept, body), kept)
        )

    async def purge(self, ids: Sequence[str]) -> int:
        return sum([await self._session.link.run("purge", text(id)) for id in dict.fromkeys(ids)])
