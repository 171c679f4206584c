"""The statements of topics and groups: each function is one step inside a transaction."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from busline.core.address import Address
from busline.core.errors import Invalid, wrong
from busline.core.frontier import Frontier
from busline.core.message import Delivery, Message
from busline.core.partition import partition
from busline.core.ports import Lag, Start
from busline.transports.sqlite.jobs import alive, within
from busline.transports.sqlite.wire import pack, unpack

PARTITIONS = 16
ANY = "SELECT 1 FROM log WHERE topic = ? AND part = ? AND seq >= ? LIMIT 1"
INSERT = "INSERT INTO log(topic, part, id, key, headers, at, body) VALUES(?, ?, ?, ?, ?, ?, ?)"
READ = (
    "SELECT seq, id, key, headers, at, body FROM log WHERE topic = ? AND part = ? AND seq >= ?"
    " ORDER BY seq LIMIT ?"
)


@dataclass(slots=True)
class Owned:
    """A topic that this process reads for a group, with the frontier of each partition."""

    group: int
    topic: int
    name: str
    frontiers: list[Frontier]
    # the rows of `done`, by partition
    persisted: list[set[int]] = field(default_factory=list[set[int]])


class Taken(NamedTuple):
    """What a process took over; `owner` is None when its number is known no more."""

    owner: int | None
    owned: list[Owned]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a settle writes of one partition: where its frontier then stands, and what is finished
    beyond it."""

    part: int
    low: int
    ahead: Sequence[int]
    passed: Sequence[int]


@dataclass(frozen=True, slots=True)
class Step:
    """What a settle finishes of one topic, by partition."""

    owned: Owned
    finished: dict[int, list[int]]
    progress: Sequence[Progress]


def topic(db: sqlite3.Connection, address: Address) -> tuple[int, int]:
    """A topic's id and its number of partitions, made at first use."""
    row = db.execute("SELECT id, parts FROM topic WHERE name = ?", (address.name,)).fetchone()
    if row is None:
        parts = address.partitions or PARTITIONS
        return (
            db.execute(
                "INSERT INTO topic(name, parts) VALUES(?, ?)", (address.name, parts)
            ).lastrowid
            or 0,
            parts,
        )
    if address.partitions not in (None, row[1]):
        remedy = "Partitions are fixed at a topic's first use: correct the declaration."
        raise Invalid(
            wrong(
                address.name,
                f"partitions={row[1]}, as the topic has",
                f"{address.partitions}",
                remedy,
            )
        )
    return int(row[0]), int(row[1])


def append(
    db: sqlite3.Connection, address: Address, messages: Sequence[Message], turn: int
) -> None:
    """Adds records, each to the partition of its key; those without one by turns."""
    id, parts = topic(db, address)
    db.executemany(
        INSERT,
        [
            (
                id,
                (turn + n) % parts if one.key is None else partition(one.key, parts),
                one.id,
                one.key,
                pack(one.headers),
                one.at,
                one.body,
            )
            for n, one in enumerate(messages)
        ],
    )


def join_all(
    db: sqlite3.Connection, group: str, addresses: Sequence[Address], start: Start
) -> None:
    for address in addresses:
        join(db, group, address, start)


def join(db: sqlite3.Connection, group: str, address: Address, start: Start) -> None:
    """Makes a group's positions, if it has none on the topic."""
    id, parts = topic(db, address)
    made = db.execute("INSERT OR IGNORE INTO grp(name, topic) VALUES(?, ?)", (group, id))
    if made.rowcount == 1:
        rows = [(made.lastrowid, part, _first(db, id, part, start)) for part in range(parts)]
        db.executemany("INSERT INTO lane(grp, part, low) VALUES(?, ?, ?)", rows)


def _first(db: sqlite3.Connection, topic: int, part: int, start: Start) -> int:
    if start == "earliest":
        return 0
    end = int(db.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM log").fetchone()[0])
    if start == "latest":
        return end
    row = db.execute(
        "SELECT MIN(seq) FROM log WHERE topic = ? AND part = ? AND at >= ?", (topic, part, start)
    ).fetchone()
    return end if row[0] is None else int(row[0])


def take_over(
    db: sqlite3.Connection, group: str, addresses: Sequence[Address], start: Start, owner: int
) -> Taken:
    """Takes the group's topics that nobody reads. Makes its positions where the file has none: it
    may be another one."""
    if not alive(db, owner):
        return Taken(None, [])
    join_all(db, group, addresses, start)
    names = [address.name for address in addresses]
    free = (
        "SELECT grp.id, topic.id, topic.name FROM grp JOIN topic ON topic.id = grp.topic WHERE"
        f" grp.name = ? AND grp.owner IS NULL AND topic.name IN ({','.join('?' * len(names))})"
    )
    rows = db.execute(free, (group, *names)).fetchall()
    db.executemany("UPDATE grp SET owner = ? WHERE id = ?", [(owner, row[0]) for row in rows])
    return Taken(owner, [_owned(db, *row) for row in rows])


def _owned(db: sqlite3.Connection, group: int, topic: int, name: str) -> Owned:
    lows = [
        row[0] for row in db.execute("SELECT low FROM lane WHERE grp = ? ORDER BY part", (group,))
    ]
    done: list[set[int]] = [set() for _ in lows]
    for part, seq in db.execute("SELECT part, seq FROM done WHERE grp = ?", (group,)):
        done[part].add(seq)
    return Owned(group, topic, name, [Frontier(low, done[n]) for n, low in enumerate(lows)], done)


def owns(db: sqlite3.Connection, group: int, owner: int) -> bool:
    """The fence: whether the group is still this process's."""
    return (
        db.execute("SELECT 1 FROM grp WHERE id = ? AND owner = ?", (group, owner)).fetchone()
        is not None
    )


def advance(db: sqlite3.Connection, group: int, progress: Sequence[Progress]) -> None:
    """Writes how far the partitions are finished."""
    db.executemany(
        "UPDATE lane SET low = ? WHERE grp = ? AND part = ?",
        [(one.low, group, one.part) for one in progress],
    )
    ahead = [(group, one.part, seq) for one in progress for seq in one.ahead]
    if ahead:
        db.executemany("INSERT OR IGNORE INTO done(grp, part, seq) VALUES(?, ?, ?)", ahead)
    passed = [(group, one.part, one.low) for one in progress if one.passed]
    if passed:
        db.executemany("DELETE FROM done WHERE grp = ? AND part = ? AND seq < ?", passed)


def leave(db: sqlite3.Connection, groups: Sequence[int], owner: int) -> None:
    db.executemany(
        "UPDATE grp SET owner = NULL WHERE id = ? AND owner = ?",
        [(group, owner) for group in groups],
    )


def lag(db: sqlite3.Connection) -> list[Lag]:
    """For each group and topic, how many records are not finished."""
    behind = (
        "SELECT grp.name, topic.name, (SELECT COUNT(*) FROM lane JOIN log ON log.topic = grp.topic"
        " AND log.part = lane.part AND log.seq >= lane.low WHERE lane.grp = grp.id) - (SELECT"
        " COUNT(*) FROM done WHERE done.grp = grp.id), topic.parts, grp.owner IS NOT NULL FROM grp"
        " JOIN topic ON topic.id = grp.topic ORDER BY 1, 2"
    )
    return [Lag(*row) for row in db.execute(behind)]


def read(
    db: sqlite3.Connection, wants: Sequence[tuple[int, int, int, int]], limit: int, size: int
) -> list[list[Any]]:
    """For each (topic, partition, first, room), its records in order; `limit` in all, shared among
    those that have any, and no more than `size` bytes of bodies."""
    left = [
        n
        for n, (topic, part, first, _) in enumerate(wants)
        if db.execute(ANY, (topic, part, first)).fetchone()
    ]
    found: list[list[Any]] = [[] for _ in wants]
    while left and limit > 0 and size > 0:
        n = left.pop(0)
        topic, part, first, room = wants[n]
        share = -(-limit // (len(left) + 1))  # while others wait, none takes more than half
        rows = within(
            db.execute(READ, (topic, part, first, min(room, share))), size, 0 if any(found) else 1
        )
        limit, size = limit - len(rows), size - sum(len(row[-1] or b"") for row in rows)
        found[n] = rows
    return found


def last(db: sqlite3.Connection, name: str, limit: int) -> list[Delivery]:
    """The last records of a topic, the oldest first."""
    sql = (
        "SELECT part, seq, id, key, headers, at, body FROM log WHERE topic = (SELECT id FROM topic"
        " WHERE name = ?) ORDER BY seq DESC LIMIT ?"
    )
    rows = db.execute(sql, (name, limit)).fetchall()[::-1]
    return [
        Delivery(Message(id, body, unpack(headers), key, at), name, 1, f"{name}/{part}@{seq}", None,
        None)
        for part, seq, id, key, headers, at, body in rows
    ]  # fmt: skip
