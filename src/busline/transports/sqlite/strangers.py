"""The statements of jobs whose task the worker that met them does not know: they wait aside for one
that does."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from busline.transports.sqlite.schema import ASIDE, WAITING

TASK = 2  # where a row has it


def introduce(
    db: sqlite3.Connection, owner: int, queues: Sequence[str], tasks: Collection[str]
) -> None:
    """Says which tasks of these queues a process knows, as long as its number stands."""
    db.executemany(
        "INSERT OR IGNORE INTO knows VALUES(?, ?, ?)",
        [(owner, queue, task) for queue in queues for task in tasks],
    )


def leave(db: sqlite3.Connection, owner: int, queues: Sequence[str]) -> None:
    db.executemany(
        "DELETE FROM knows WHERE n = ? AND queue = ?", [(owner, queue) for queue in queues]
    )


def bring_back(
    db: sqlite3.Connection, queues: Sequence[str], tasks: Collection[str], limit: int
) -> None:
    """Those that wait aside and are known to the caller take their old places again, the oldest
    first."""
    found = (
        f"SELECT seq FROM job WHERE queue = ? AND state = {ASIDE} AND task IN (SELECT value FROM"
        " json_each(?)) ORDER BY seq LIMIT ?"
    )
    names = json.dumps(sorted(tasks))
    for queue in queues:
        db.execute(
            f"UPDATE job SET state = {WAITING} WHERE seq IN ({found})", (queue, names, limit)
        )


def put_aside(
    db: sqlite3.Connection, rows: Sequence[Any], tasks: Collection[str], now: float
) -> Mapping[str, int]:
    """Of these rows those that the caller does not know wait aside from now on. Returns how many of
    each task."""
    strange = [row for row in rows if row[TASK] not in tasks]
    if strange:
        seqs = json.dumps([row[0] for row in strange])
        db.execute(
            f"UPDATE job SET state = {ASIDE}, ready = ? WHERE seq IN (SELECT value FROM"
            " json_each(?))",
            (now, seqs),
        )
    return Counter(row[TASK] for row in strange)


def forsaken(
    db: sqlite3.Connection, queues: Sequence[str], since: float, now: float, limit: int
) -> list[int]:
    """Some that have waited aside since then or longer, and that nobody alive knows. For the others
    the time begins anew."""
    found: list[int] = []
    for queue in queues:
        sql = (
            f"SELECT seq, task FROM job WHERE queue = ? AND state = {ASIDE} AND ready <= ? ORDER BY"
            " ready LIMIT ?"
        )
        rows = db.execute(sql, (queue, since, limit - len(found))).fetchall()
        known = {task for task in {task for _, task in rows} if _is_known(db, queue, task)}
        later = json.dumps([seq for seq, task in rows if task in known])
        db.execute(
            "UPDATE job SET ready = ? WHERE seq IN (SELECT value FROM json_each(?))", (now, later)
        )
        found += [seq for seq, task in rows if task not in known]
    return found


def _is_known(db: sqlite3.Connection, queue: str, task: str) -> bool:
    return (
        db.execute(
            "SELECT 1 FROM knows WHERE queue = ? AND task = ? LIMIT 1", (queue, task)
        ).fetchone()
        is not None
    )


def earliest(db: sqlite3.Connection, queues: Sequence[str]) -> float | None:
    """Since when the first of those that wait aside does."""
    sql = f"SELECT MIN(ready) FROM job WHERE queue = ? AND state = {ASIDE}"
    return min(
        (row[0] for queue in queues for row in db.execute(sql, (queue,)) if row[0] is not None),
        default=None,
    )
