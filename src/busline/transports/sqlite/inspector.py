"""Looks into the file, and steers its dead letters."""

import sqlite3
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from busline.core.address import Address, redriven_group
from busline.core.causes import details
from busline.core.counts import Counts, Whose, read
from busline.core.errors import wrong
from busline.core.facts import result_key
from busline.core.ids import new_id
from busline.core.message import DeadLetter, Delivery, Message
from busline.core.ports import Depth, Lag, Look, Redriven, Standing
from busline.core.served import Served
from busline.transports.sqlite import jobs, topics
from busline.transports.sqlite.session import Session
from busline.transports.sqlite.wire import unpack, unpack_options

FIELDS = (
    "id", "address", "handler", "position", "key", "body", "headers", "reason", "error_type",
    "error", "attempts", "died_at", "at", "queue", "details",
)  # fmt: skip
SHOWN = ", ".join(FIELDS)
DEPTH = (  # each part is answered from an index, without a look at the bodies
    "SELECT queue, 0, COUNT(*) FROM job WHERE state = 0 GROUP BY queue UNION ALL"
    " SELECT queue, state, COUNT(*) FROM job WHERE state IN (1, 2) GROUP BY queue, state UNION ALL"
    " SELECT queue, 3, COUNT(*) FROM job WHERE state = 3 GROUP BY queue UNION ALL"
    " SELECT queue, 2, COUNT(*) FROM job WHERE state = 4 GROUP BY queue"
)
OLDEST = (
    "SELECT queue, MAX(at, COALESCE(due, 0)) FROM job WHERE seq IN (SELECT MIN(seq) FROM job WHERE"
    " state = 0 GROUP BY queue)"
)
STANDING = (  # from the index alone, but for two letters of each
    "SELECT address, queue, handler, count, (SELECT died_at FROM dead WHERE seq = first), (SELECT"
    " died_at FROM dead WHERE seq = last) FROM (SELECT queue, address, handler, COUNT(*) AS count,"
    " MIN(seq) AS first, MAX(seq) AS last FROM dead GROUP BY queue, address, handler)"
)
STATES = ("waiting", "delayed", "delayed", "running", "waiting")


class SqliteInspector:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def look(self, id: str) -> Look:
        return await self._session.file.read(lambda db: _look(db, id, self._session.clock.time()))

    async def depth(self) -> Mapping[str, Depth]:
        rows, oldest = await self._session.file.read(
            lambda db: (db.execute(DEPTH).fetchall(), dict(db.execute(OLDEST).fetchall()))
        )
        found: dict[str, list[int]] = {}
        for queue, state, count in rows:
            found.setdefault(queue, [0, 0, 0, 0])[state] += count
        return {
            queue: Depth._make((*counts, oldest.get(queue)))
            for queue, counts in sorted(found.items())
        }

    async def peek(self, address: Address, limit: int) -> Sequence[Delivery]:
        see = topics.last if address.kind == "topic" else jobs.first
        return await self._session.file.read(lambda db: see(db, address.name, limit))

    async def clear(self, queue: str) -> int:
        count = 0
        while gone := await self._session.patiently(lambda db: jobs.clear(db, queue)):
            count += gone
        return count

    async def lag(self, groups: Sequence[str] | None = None) -> Sequence[Lag]:
        return [
            one
            for one in await self._session.file.read(topics.lag)
            if groups is None or one.group in groups
        ]

    async def partitions(self, topic: str) -> int:
        row = await self._session.file.read(
            lambda db: db.execute("SELECT parts FROM topic WHERE name = ?", (topic,)).fetchone()
        )
        return row[0] if row else 0

    async def counts(self) -> Mapping[Whose, Counts]:
        rows = await self._session.file.read(
            lambda db: db.execute("SELECT * FROM count ORDER BY handler").fetchall()
        )
        return {read(row[0]): Counts(*row[1:]) for row in rows}

    async def dead(
        self,
        *,
        served: Container[Served] | None = None,
        handlers: Collection[str] | None = None,
        id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[DeadLetter]:
        where, values = ["seq > COALESCE((SELECT seq FROM dead WHERE id = ?), 0)"], [after]
        if handlers is not None:
            where.append(f"handler IN ({_marks(handlers)})")
            values += handlers
        if id is not None:
            where.append("id = ?")
            values.append(id)
        chosen = f"FROM dead WHERE {' AND '.join(where)}"
        rows = await self._session.file.read(lambda db: _page(db, chosen, values, served, limit))
        return [_letter(row) for row in rows]

    async def standing(self, served: Container[Served] | None = None) -> Sequence[Standing]:
        rows = await self._session.file.read(lambda db: db.execute(STANDING).fetchall())
        found = [Standing(Served.of(address, queue), *rest) for address, queue, *rest in rows]
        return [one for one in found if served is None or one.served in served]

    async def redrive(self, ids: Sequence[str], handler: str | None = None) -> Redriven:
        now = self._session.clock.time()
        done = await self._session.patiently(lambda db: _redrive(db, ids, handler, now))
        self._session.wake()
        return done

    async def mend(self, id: str, body: bytes) -> bool:
        return await self._session.patiently(
            lambda db: db.execute("UPDATE dead SET body = ? WHERE id = ?", (body, id)).rowcount == 1
        )

    async def purge(self, ids: Sequence[str]) -> int:
        return await self._session.patiently(
            lambda db: sum(
                db.execute("DELETE FROM dead WHERE id = ?", (id,)).rowcount for id in ids
            )
        )


def _look(db: sqlite3.Connection, id: str, now: float) -> Look:
    if row := db.execute("SELECT state, attempts FROM job WHERE id = ?", (id,)).fetchone():
        return Look(STATES[row[0]], row[1] + (row[0] == 3))  # type: ignore[arg-type]  # one of the four
    if row := db.execute(f"SELECT {SHOWN} FROM dead WHERE id = ?", (id,)).fetchone():
        return Look("failed", row[10], _letter(row))
    kept = db.execute(
        "SELECT 1 FROM fact WHERE key = ? AND until > ?", (result_key(id), now)
    ).fetchone()
    return Look("succeeded" if kept else "unknown")


def _page(
    db: sqlite3.Connection,
    chosen: str,
    values: Sequence[object],
    served: Container[Served] | None,
    limit: int,
) -> list[Any]:
    """The first letters of those that are chosen: one look into the index for each place of those
    that are served."""
    if served is None:
        return db.execute(
            f"SELECT {SHOWN} {chosen} ORDER BY seq LIMIT ?", (*values, limit)
        ).fetchall()
    sql = f"SELECT seq {chosen} AND queue = ? AND address = ? ORDER BY seq LIMIT ?"
    found = sorted(
        row[0]
        for one in _places(db)
        if one in served
        for row in db.execute(sql, (*values, one.queue, one.address, limit))
    )
    return [
        row
        for seq in found[:limit]
        for row in db.execute(f"SELECT {SHOWN} FROM dead WHERE seq = ?", (seq,))
    ]


def _places(db: sqlite3.Connection) -> Iterator[Served]:
    """What has letters: from one to the next by the index, however many each has."""
    after = ("", "")
    while row := db.execute(
        "SELECT queue, address FROM dead WHERE (queue, address) > (?, ?) ORDER BY queue, address"
        " LIMIT 1",
        after,
    ).fetchone():
        yield Served.of(row[1], row[0])
        after = row


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))


def _letter(row: Any) -> DeadLetter:
    fields: dict[str, Any] = dict(zip(FIELDS, row, strict=True))
    headers, group = unpack(fields.pop("headers")), redriven_group(fields.pop("queue"))
    causes, where = details(fields.pop("details"))
    return DeadLetter(**fields, raw_headers=headers, group=group, causes=causes, traceback=where)


def _redrive(
    db: sqlite3.Connection, ids: Sequence[str], handler: str | None, now: float
) -> Redriven:
    again, refused = 0, []
    for id in ids:
        row = db.execute(
            "SELECT body, headers, key, at, task, uniq, remember, options, position, queue FROM"
            " dead WHERE id = ?",
            (id,),
        ).fetchone()
        if row is None:
            continue
        body, headers, key, at, task, unique, remember, options, position, queue = row
        message = Message(
            id,
            body,
            unpack(headers),
            key,
            at,
            handler or task,
            None,
            unique,
            remember,
            unpack_options(options),
            position,
        )
        if (holder := jobs.lock_holder(db, unique)) is not None:
            refused.append(
                wrong(
                    id,
                    "no living job of the same unique key",
                    f"the job {holder}",
                    "Redrive it when that one is final.",
                )
            )
            continue
        _bring_back(db, queue, message, now)
        again += 1
    return Redriven(again, tuple(refused))


def _bring_back(db: sqlite3.Connection, queue: str, message: Message, now: float) -> None:
    db.execute("DELETE FROM dead WHERE id = ?", (message.id,))
    db.execute("DELETE FROM known WHERE id = ?", (message.id,))
    db.execute("DELETE FROM fact WHERE key = ?", (result_key(message.id),))
    if db.execute("SELECT 1 FROM job WHERE id = ?", (message.id,)).fetchone():
        message = replace(message, id=new_id())
    jobs.insert(db, queue, [message], now)
