"""The statements of queues: each function is one step inside a transaction."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from busline.core.errors import describe
from busline.core.ids import new_id
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, Acked, Outcome, Rejected, Retried
from busline.transports.sqlite.schema import DELAYED, RETRYING, RUNNING, WAITING
from busline.transports.sqlite.wire import pack, pack_options, unpack, unpack_options

COLUMNS = "seq, id, task, key, headers, at, due, uniq, remember, options, origin, attempts, queue, body"
COLUMN_COUNT = 14
HEAD = "INSERT OR IGNORE INTO job(id, queue, state, due, ready, uniq, task, key, headers, at, remember, options, origin, body) VALUES"
ROW = f"({','.join('?' * COLUMN_COUNT)})"
INSERT = f"{HEAD} {ROW}"
TOGETHER = 100  # rows of one statement: the interpreter's lock is given up once for them, not once for each
INSERT_TOGETHER = f"{HEAD} {','.join([ROW] * TOGETHER)}"
DEATHS = 3
Settled = tuple[Delivery, Outcome]


class Claim(NamedTuple):
    """What a claim brought, and when something more falls due; `lost`: the process is no longer known."""

    deliveries: list[Delivery]
    due: float | None
    lost: bool = False


def insert(db: sqlite3.Connection, queue: str, messages: Sequence[Message], now: float) -> dict[int, str]:
    """Adds jobs; returns those that were there already, by index."""
    there: dict[int, str] = {}
    rows = []
    for index, message in enumerate(messages):
        if message.unique is not None or message.remember:
            if (id := holder(db, message, now)) is not None:
                there[index] = id
                continue
            db.execute(INSERT, _row(queue, message, now))
        else:
            rows.append(_row(queue, message, now))
    whole = len(rows) - len(rows) % TOGETHER
    for start in range(0, whole, TOGETHER):
        db.execute(INSERT_TOGETHER, list(chain.from_iterable(rows[start : start + TOGETHER])))
    db.executemany(INSERT, rows[whole:])
    return there


def _row(queue: str, message: Message, now: float) -> tuple[Any, ...]:
    due = message.due
    state = WAITING if due is None or due <= now else DELAYED
    return (
        message.id, queue, state, due, due, message.unique, message.task, message.key, pack(message.headers), message.at,
        message.remember, pack_options(message.options), message.origin, message.body,
    )  # fmt: skip


def holder(db: sqlite3.Connection, message: Message, now: float) -> str | None:
    """The id of the job that is there already under this id or unique key."""
    if message.remember:
        known = "SELECT 1 FROM known WHERE id = ? AND until > ? UNION ALL SELECT 1 FROM job WHERE id = ?"
        if db.execute(known, (message.id, now, message.id)).fetchone():
            return message.id
    if message.unique is not None:
        row = db.execute("SELECT id FROM job WHERE uniq = ?", (message.unique,)).fetchone()
        return None if row is None else str(row[0])
    return None


def claim(db: sqlite3.Connection, queues: Sequence[str], limit: int, owner: int, now: float) -> Claim:
    """Takes the oldest jobs that are ready."""
    if not db.execute("SELECT 1 FROM worker WHERE n = ?", (owner,)).fetchone():
        return Claim([], None, lost=True)
    db.execute("UPDATE job SET state = 0 WHERE state IN (1, 2) AND ready <= ?", (now,))
    suspects = db.execute(f"SELECT {COLUMNS} FROM job WHERE state = 0 AND deaths >= 2 AND queue IN ({_marks(queues)}) LIMIT 1", queues).fetchall()
    if suspects or _holds_suspect(db, owner):
        rows = suspects if suspects and not _holds(db, owner) else []  # it is handed out alone, or it waits for that
    else:
        rows = _oldest(db, queues, limit)
    if rows:
        db.execute(f"UPDATE job SET state = {RUNNING}, owner = ? WHERE seq IN (SELECT value FROM json_each(?))", (owner, _list(row[0] for row in rows)))
    due = db.execute("SELECT MIN(ready) FROM job WHERE state IN (1, 2)").fetchone()[0]
    return Claim([_delivery(row, owner) for row in rows], due)


def _oldest(db: sqlite3.Connection, queues: Sequence[str], limit: int) -> list[Any]:
    rows: list[Any] = []
    for queue in queues:
        if len(rows) < limit:
            rows += db.execute(f"SELECT {COLUMNS} FROM job WHERE queue = ? AND state = 0 ORDER BY seq LIMIT ?", (queue, limit - len(rows))).fetchall()
    return rows


def _holds(db: sqlite3.Connection, owner: int) -> bool:
    return db.execute("SELECT 1 FROM job WHERE owner = ? AND state = 3 LIMIT 1", (owner,)).fetchone() is not None


def _holds_suspect(db: sqlite3.Connection, owner: int) -> bool:
    return db.execute("SELECT 1 FROM job WHERE owner = ? AND state = 3 AND deaths >= 2 LIMIT 1", (owner,)).fetchone() is not None


def _delivery(row: Any, owner: int) -> Delivery:
    seq, id, task, key, headers, at, due, unique, remember, options, origin, attempts, queue, body = row
    message = Message(
        id, body, unpack(headers) if headers else (), key, at, task, due, unique, remember,
        unpack_options(options) if options else None, origin,
    )  # fmt: skip
    address = queue if origin is None else origin.rpartition("/")[0]
    return Delivery(message, address, attempts + 1, origin, None, (seq, owner))


def settle(db: sqlite3.Connection, settled: Sequence[Settled], owner: int, now: float, queues: dict[object, str], effects: Any) -> set[object]:
    """Applies outcomes to the jobs that `owner` still has in hand; returns the receipts of the others."""
    plain = [one for one, outcome in settled if outcome is ACKED and not one.message.remember]
    refused = _acknowledge(db, plain, owner)
    for delivery, outcome in settled:
        if outcome is ACKED and not delivery.message.remember:
            continue
        if not _end(db, delivery, outcome, owner, now, queues):
            refused.add(delivery.receipt)
        elif isinstance(outcome, Acked | Rejected):
            effects(db, outcome.effects, now)
    return refused


def _acknowledge(db: sqlite3.Connection, deliveries: Sequence[Delivery], owner: int) -> set[object]:
    """Deletes finished jobs in one statement; where some are not ours, finds out which."""
    if not deliveries:
        return set()
    seqs = _list(one.receipt[0] for one in deliveries)
    db.execute("SAVEPOINT acknowledge")
    deleted = db.execute("DELETE FROM job WHERE owner = ? AND seq IN (SELECT value FROM json_each(?))", (owner, seqs)).rowcount
    refused: set[object] = set()
    if deleted != len(deliveries):
        db.execute("ROLLBACK TO acknowledge")
        ours = {row[0] for row in db.execute("SELECT seq FROM job WHERE owner = ? AND seq IN (SELECT value FROM json_each(?))", (owner, seqs))}
        db.execute("DELETE FROM job WHERE seq IN (SELECT value FROM json_each(?))", (_list(ours),))
        refused = {one.receipt for one in deliveries if one.receipt[0] not in ours}
    db.execute("RELEASE acknowledge")
    return refused


def _end(db: sqlite3.Connection, delivery: Delivery, outcome: Outcome, owner: int, now: float, queues: dict[object, str]) -> bool:
    """One job's end, whichever it is; False if it is not ours."""
    seq = delivery.receipt[0]
    if isinstance(outcome, Retried):
        sql, values = f"state = {RETRYING}, ready = ?, attempts = attempts + ?, owner = NULL", (now + outcome.after, outcome.counted)
        return db.execute(f"UPDATE job SET {sql} WHERE seq = ? AND owner = ?", (*values, seq, owner)).rowcount == 1
    if not isinstance(outcome, Acked | Rejected):
        return db.execute("UPDATE job SET state = 0, owner = NULL WHERE seq = ? AND owner = ?", (seq, owner)).rowcount == 1
    if db.execute("DELETE FROM job WHERE seq = ? AND owner = ?", (seq, owner)).rowcount != 1:
        return False
    if isinstance(outcome, Rejected):
        bury(db, delivery, outcome, queues[delivery.receipt], now)
    remember(db, delivery.message.id, delivery.message.remember, now)
    return True


def remember(db: sqlite3.Connection, id: str, seconds: float, now: float) -> None:
    if seconds:
        db.execute("INSERT OR REPLACE INTO known VALUES(?, ?)", (id, now + seconds))


def bury(db: sqlite3.Connection, delivery: Delivery, outcome: Rejected, queue: str, now: float) -> None:
    """Writes a dead letter. `queue`: where it goes when it is redriven."""
    message = delivery.message
    kind, text = describe(outcome.error) if outcome.error is not None else (None, None)
    taken = db.execute("SELECT 1 FROM dead WHERE id = ?", (message.id,)).fetchone()
    db.execute(
        "INSERT INTO dead(id, address, handler, position, key, body, headers, reason, error_type, error, attempts, died_at, at,"
        " queue, task, uniq, remember, options) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new_id() if taken else message.id, delivery.address, delivery.handler, delivery.position, message.key, message.body,
            pack(message.headers), outcome.reason, kind, text, delivery.attempt, now, message.at,
            queue, message.task or delivery.handler, message.unique, message.remember, pack_options(message.options),
        ),
    )  # fmt: skip


def free_all(db: sqlite3.Connection, dead: Sequence[int], now: float) -> None:
    for n in dead:
        free(db, n, now)


def free(db: sqlite3.Connection, n: int, now: float) -> None:
    """Gives back what a dead process had in hand; what died with its third process is dead."""
    for row in db.execute(f"SELECT {COLUMNS} FROM job WHERE owner = ? AND state = 3 AND deaths >= ?", (n, DEATHS - 1)).fetchall():
        delivery = _delivery(row, n)
        delivery.handler = delivery.message.task
        bury(db, delivery, Rejected(f"its worker died {DEATHS} times"), row[12], now)
        remember(db, delivery.message.id, delivery.message.remember, now)
        db.execute("DELETE FROM job WHERE seq = ?", (row[0],))
    db.execute("UPDATE job SET state = 0, owner = NULL, deaths = deaths + 1 WHERE owner = ? AND state = 3", (n,))
    db.execute("UPDATE grp SET owner = NULL WHERE owner = ?", (n,))
    db.execute("DELETE FROM worker WHERE n = ?", (n,))


def release(db: sqlite3.Connection, seqs: Sequence[int], owner: int) -> None:
    db.execute("UPDATE job SET state = 0, owner = NULL WHERE owner = ? AND seq IN (SELECT value FROM json_each(?))", (owner, _list(seqs)))


def _list(numbers: Any) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
