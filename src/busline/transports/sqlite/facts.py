"""Facts by key, each with a time to live."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial

from busline.transports.sqlite.session import Session

GET = "SELECT value FROM fact WHERE key = ? AND until > ?"
EXPIRED, ROUNDS = 1000, 50  # facts or ids removed at a time, and how often in one look
KEYS = {"fact": "key", "known": "id"}


def keep(db: sqlite3.Connection, key: str, value: bytes, until: float) -> None:
    db.execute("INSERT OR REPLACE INTO fact VALUES(?, ?, ?)", (key, value, until))


def _first(db: sqlite3.Connection, sql: str, until: float) -> object:
    return db.execute(sql, (until,)).fetchone()


def _delete(db: sqlite3.Connection, sql: str, until: float) -> None:
    db.execute(sql, (until, until))


class SqliteStore:
    """The store of one file. Waiters are woken by a settle here, or by the pipe when it happened
    elsewhere."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiters: dict[str, set[asyncio.Event]] = {}

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        now = self._session.clock.time()
        rows = await self._session.file.read(
            lambda db: [db.execute(GET, (key, now)).fetchone() for key in keys]
        )
        return [None if row is None else row[0] for row in rows]

    async def put(self, key: str, value: bytes, ttl: float, *, absent: bool = False) -> bool:
        now = self._session.clock.time()

        def put(db: sqlite3.Connection) -> bool:
            if absent and db.execute(GET, (key, now)).fetchone():
                return False
            keep(db, key, value, now + ttl)
            return True

        stored = await self._session.patiently(put)
        if stored:
            self.arrived({key: value})
            self._session.wake()
        return stored

    async def wait(self, key: str, until: float | None) -> bytes | None:
        event, clock = asyncio.Event(), self._session.clock
        self._waiters.setdefault(key, set()).add(event)
        timer = (
            None
            if until is None or until == float("inf")
            else clock.after(until - clock.ticks(), event.set)
        )
        try:
            while True:
                event.clear()
                value = (await self.get([key]))[0]
                if value is not None or (until is not None and clock.ticks() >= until):
                    return value
                await event.wait()
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters[key].discard(event)
            if not self._waiters[key]:
                del self._waiters[key]

    def arrived(self, facts: Mapping[str, bytes]) -> None:
        """Wakes those who wait for these."""
        if self._waiters:
            for key in facts:
                for event in self._waiters.get(key, ()):
                    event.set()

    def look_again(self) -> None:
        """Something was written elsewhere: every waiter looks."""
        for events in self._waiters.values():
            for event in events:
                event.set()

    async def expire(self, now: float) -> None:
        """Removes facts and ids whose time is over, some at a time so that others come between."""
        for table in ("fact", "known"):
            stale = f"SELECT 1 FROM {table} WHERE until <= ? LIMIT 1"
            delete = (
                f"DELETE FROM {table} WHERE until <= ? AND {KEYS[table]} IN (SELECT {KEYS[table]}"
                f" FROM {table} WHERE until <= ? LIMIT {EXPIRED})"
            )
            for _ in range(ROUNDS):
                if not await self._session.file.read(partial(_first, sql=stale, until=now)):
                    break
                await self._session.file.write(partial(_delete, sql=delete, until=now))
