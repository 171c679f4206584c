"""The statements of queues: each function is one step inside a transaction."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

from busline.core.causes import told
from busline.core.counts import Counts, Whose, write
from busline.core.ids import new_id
from busline.core.message import Delivery, Message, delivered
from busline.core.outcome import ACKED, Effect, Outcome, Rejected, Retried, Settled
from busline.transports.sqlite import strangers
from busline.transports.sqlite.schema import DELAYED, RETRYING, RUNNING, WAITING
from busline.transports.sqlite.wire import pack, pack_options, unpack, unpack_options

COLUMNS = (
    "seq, id, task, key, headers, at, due, uniq, remember, options, origin, attempts, queue, body"
)
COLUMN_COUNT = 14
HEAD = (
    "INSERT OR IGNORE INTO job(id, queue, state, due, ready, uniq, task, key, headers, at,"
    " remember, options, origin, body) VALUES"
)
ROW = f"({','.join('?' * COLUMN_COUNT)})"
INSERT = f"{HEAD} {ROW}"
# rows of one statement: the interpreter's lock is given up once for them, not once for each
TOGETHER = 100
INSERT_TOGETHER = f"{HEAD} {','.join([ROW] * TOGETHER)}"
DEATHS = 3
ROUNDS = 10  # in which a claim puts aside what its caller does not know
CLEARED = 1000  # jobs in one transaction
PROMOTED = 1000  # due jobs that become ready in one claim
Apply = Callable[[sqlite3.Connection, Delivery, Sequence[Effect], float], None]


class Claim(NamedTuple):
    """What a claim by `owner` brought, and when something more falls due.

    `withheld`: there is more, but a job that ended two processes runs alone first. `lost`: the
    owner is known no more. `met`: how many jobs of each task that the caller does not know were
    met, and wait aside."""

    owner: int
    deliveries: list[Delivery]
    due: float | None = None
    withheld: bool = False
    lost: bool = False
    met: Mapping[str, int] = MappingProxyType({})


class Wanted(NamedTuple):
    """What a receiver takes: so many at most, and no more than `size` bytes of bodies. `every`:
    what all receivers of this process take from; `since`: what nobody has known from then on."""

    queues: Sequence[str]
    every: Sequence[str]
    limit: int
    size: int
    tasks: frozenset[str] | None
    since: float


def insert(
    db: sqlite3.Connection, queue: str, messages: Sequence[Message], now: float
) -> dict[int, str]:
    """Adds jobs, in their order; returns those that were there already, by index."""
    there: dict[int, str] = {}
    rows: list[tuple[Any, ...]] = []
    for index, message in enumerate(messages):
        if message.unique is not None or message.remember:
            _add(db, rows, index, there)
            rows = []
            if (id := holder(db, message, now)) is not None:
                there[index] = id
                continue
        rows.append(_row(queue, message, now))
    _add(db, rows, len(messages), there)
    return there


def _add(
    db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], end: int, there: dict[int, str]
) -> None:
    """Adds the rows of the messages before the index `end`; of an id that is there already,
    none."""
    whole, added = len(rows) - len(rows) % TOGETHER, 0
    for start in range(0, whole, TOGETHER):
        added += db.execute(
            INSERT_TOGETHER, list(chain.from_iterable(rows[start : start + TOGETHER]))
        ).rowcount
    if whole < len(rows):
        added += db.executemany(INSERT, rows[whole:]).rowcount
    if added < len(rows):
        _find_ignored(db, [row[0] for row in rows], added, end - len(rows), there)


def _find_ignored(
    db: sqlite3.Connection, ids: Sequence[str], added: int, first: int, there: dict[int, str]
) -> None:
    """Notes which of these ids were not added: their row is older than the last `added` ones, or
    met before."""
    newest = db.execute("SELECT MAX(seq) FROM job").fetchone()[0]
    seen: set[str] = set()
    for index, id in enumerate(ids, first):
        if (
            id in seen
            or db.execute("SELECT seq FROM job WHERE id = ?", (id,)).fetchone()[0] <= newest - added
        ):
            there[index] = id
        seen.add(id)


def _row(queue: str, message: Message, now: float) -> tuple[Any, ...]:
    due = message.due
    state = WAITING if due is None or due <= now else DELAYED
    return (
        message.id, queue, state, due, due, message.unique, message.task, message.key,
        pack(message.headers), message.at,
        message.remember, pack_options(message.options), message.origin, message.body,
    )  # fmt: skip


def holder(db: sqlite3.Connection, message: Message, now: float) -> str | None:
    """The id of the job that is there already under this id or unique key."""
    known = (
        "SELECT 1 FROM known WHERE id = ? AND until > ? UNION ALL SELECT 1 FROM job WHERE id = ?"
    )
    if db.execute(known, (message.id, now, message.id)).fetchone():
        return message.id
    return lock_holder(db, message.unique)


def lock_holder(db: sqlite3.Connection, unique: str | None) -> str | None:
    """The id of the living job that holds a unique key."""
    row = db.execute("SELECT id FROM job WHERE uniq = ?", (unique,)).fetchone()
    return None if row is None else str(row[0])


def claim(db: sqlite3.Connection, wanted: Wanted, owner: int, now: float) -> Claim:
    """Takes the oldest jobs that are ready."""
    if not alive(db, owner):
        return Claim(owner, [], lost=True)
    due = (
        f"SELECT seq FROM job WHERE state IN (1, 2) AND ready <= ? ORDER BY ready LIMIT {PROMOTED}"
    )
    db.execute(f"UPDATE job SET state = 0 WHERE seq IN ({due})", (now,))
    rows, withheld, met = _choose_known(db, wanted, owner, now)
    if rows:
        db.execute(
            f"UPDATE job SET state = {RUNNING}, owner = ? WHERE seq IN (SELECT value FROM"
            " json_each(?))",
            (owner, _list([row[0] for row in rows])),
        )
        return Claim(owner, [_delivery(row, owner) for row in rows], withheld=withheld, met=met)
    return Claim(owner, [], now if met else _next(db, wanted, now), withheld, met=met)


def _next(db: sqlite3.Connection, wanted: Wanted, now: float) -> float | None:
    """When something more falls due, or has been known to nobody for too long."""
    due = db.execute("SELECT MIN(ready) FROM job WHERE state IN (1, 2)").fetchone()[0]
    aside = strangers.earliest(db, wanted.queues)
    return min(
        (
            one
            for one in (due, None if aside is None else aside + now - wanted.since)
            if one is not None
        ),
        default=None,
    )


def _choose_known(
    db: sqlite3.Connection, wanted: Wanted, owner: int, now: float
) -> tuple[list[Any], bool, Mapping[str, int]]:
    """The rows to take, whether some are withheld, and what was put aside on the way: as much of
    that as a claim has time for."""
    met: dict[str, int] = {}
    if (tasks := wanted.tasks) is None:
        return *_choose(db, wanted, owner), met
    strangers.bring_back(db, wanted.queues, tasks, wanted.limit)
    old = strangers.forsaken(db, wanted.queues, wanted.since, now, -(-wanted.limit // 4))
    wanted = wanted._replace(limit=wanted.limit - len(old))
    rows, withheld = _choose(db, wanted, owner)
    for _ in range(ROUNDS):
        strange = strangers.put_aside(db, rows, tasks, now)
        if not strange:
            break
        for task, count in strange.items():
            met[task] = met.get(task, 0) + count
        rows, withheld = _choose(db, wanted, owner)
    rows = [row for row in rows if row[strangers.TASK] in tasks]
    return rows if withheld else [*within(_rows(db, old), wanted.size), *rows], withheld, met


def first(db: sqlite3.Connection, queue: str, limit: int) -> list[Delivery]:
    """The first jobs of a queue that nobody has in hand; those that wait for a time come behind the
    others."""
    found: list[Any] = []
    for states, order in (("0", "seq"), ("1, 2", "ready"), ("4", "ready")):
        sql = (
            f"SELECT {COLUMNS} FROM job WHERE queue = ? AND state IN ({states}) ORDER BY {order}"
            " LIMIT ?"
        )
        found += db.execute(sql, (queue, limit - len(found)))
    return [_delivery(row, 0) for row in found]


def clear(db: sqlite3.Connection, queue: str) -> int:
    """Forgets jobs of a queue that nobody has in hand, some at a time; returns how many."""
    some = f"SELECT seq FROM job WHERE queue = ? AND state != {RUNNING} LIMIT {CLEARED}"
    return db.execute(f"DELETE FROM job WHERE seq IN ({some})", (queue,)).rowcount


def alive(db: sqlite3.Connection, owner: int) -> bool:
    """Whether a process's number still stands."""
    return db.execute("SELECT 1 FROM worker WHERE n = ?", (owner,)).fetchone() is not None


def _choose(db: sqlite3.Connection, wanted: Wanted, owner: int) -> tuple[list[Any], bool]:
    """The rows to take, and whether some are withheld: what was in hand at two deaths is taken
    alone."""
    suspects = db.execute(
        "SELECT seq, queue, state, owner FROM job WHERE deaths >= 2 ORDER BY seq"
    ).fetchall()
    if any(state == RUNNING and holder == owner for _, _, state, holder in suspects):
        return [], True
    waiting = [
        (seq, queue)
        for seq, queue, state, _ in suspects
        if state == WAITING and queue in wanted.every
    ]
    if not waiting:
        return within(_oldest(db, wanted.queues, wanted.limit), wanted.size), False
    ours = [seq for seq, queue in waiting if queue in wanted.queues]
    if not ours or _holds(db, owner):
        return [], True
    return _rows(db, ours[:1]), True


def _rows(db: sqlite3.Connection, seqs: Sequence[int]) -> list[Any]:
    return (
        db.execute(
            f"SELECT {COLUMNS} FROM job WHERE seq IN (SELECT value FROM json_each(?))",
            (_list(seqs),),
        ).fetchall()
        if seqs
        else []
    )


def _oldest(db: sqlite3.Connection, queues: Sequence[str], limit: int) -> Iterator[Any]:
    """Of the first queue, then of the next, each read as far as it is asked for."""
    for queue in queues:
        for row in db.execute(
            f"SELECT {COLUMNS} FROM job WHERE queue = ? AND state = 0 ORDER BY seq LIMIT ?",
            (queue, limit),
        ):
            limit -= 1
            yield row


def within(rows: Iterable[Any], size: int, least: int = 1) -> list[Any]:
    """The first rows, whose last columns together are no larger than that; so many at least."""
    found: list[Any] = []
    for row in rows:
        size -= len(row[-1] or b"")
        if size < 0 and len(found) >= least:
            break
        found.append(row)
    return found


def _holds(db: sqlite3.Connection, owner: int) -> bool:
    return (
        db.execute("SELECT 1 FROM job WHERE owner = ? AND state = 3 LIMIT 1", (owner,)).fetchone()
        is not None
    )


def _delivery(row: Any, owner: int) -> Delivery:
    (
        seq,
        id,
        task,
        key,
        headers,
        at,
        due,
        unique,
        remember,
        options,
        origin,
        attempts,
        queue,
        body,
    ) = row
    message = Message(
        id, body, unpack(headers) if headers else (), key, at, task, due, unique, remember,
        unpack_options(options) if options else None, origin,
    )  # fmt: skip
    return delivered(message, queue, attempts + 1, (seq, owner, queue, id))


def queue_of(delivery: Delivery) -> str:
    """The queue that a job was claimed from."""
    return str(delivery.receipt[2])


class Impossible(Exception):
    """An outcome carries an effect that can never be applied."""

    def __init__(self, delivery: Delivery, error: Exception) -> None:
        self.delivery, self.error = delivery, error
        super().__init__(str(error))

    @property
    def instead(self) -> Rejected:
        """What becomes of its delivery."""
        return Rejected(f"its sends cannot be done: {self.error}", self.error)


def settle(
    db: sqlite3.Connection, settled: Sequence[Settled], owner: int, now: float, apply: Apply
) -> set[object]:
    """Applies outcomes to the jobs that `owner` still has in hand; returns the receipts of the
    others."""
    final = [one for one in settled if one[1].final]
    late = _delete(db, [one[0] for one in final], owner)
    _remember(
        db,
        [one.message for one, _ in final if one.message.remember and one.receipt not in late],
        now,
    )
    for delivery, outcome in settled:
        if outcome is ACKED or delivery.receipt in late:
            continue
        if not outcome.final:
            if not _give_back(db, delivery.receipt[0], outcome, owner, now):
                late.add(delivery.receipt)
            continue
        if isinstance(outcome, Rejected):
            bury(db, delivery, outcome, queue_of(delivery), now)
        apply(db, delivery, outcome.effects, now)
    return late


def _delete(db: sqlite3.Connection, deliveries: Sequence[Delivery], owner: int) -> set[object]:
    """Deletes finished jobs in one statement; where some are not ours, finds out which."""
    if not deliveries:
        return set()
    seqs = _list([one.receipt[0] for one in deliveries])
    ours = "FROM job WHERE owner = ? AND seq IN (SELECT value FROM json_each(?))"
    db.execute("SAVEPOINT final")
    late: set[object] = set()
    if db.execute(f"DELETE {ours}", (owner, seqs)).rowcount != len(deliveries):
        db.execute("ROLLBACK TO final")
        found = {row[0] for row in db.execute(f"SELECT seq {ours}", (owner, seqs))}
        late = {one.receipt for one in deliveries if one.receipt[0] not in found}
        db.execute(f"DELETE {ours}", (owner, seqs))
    db.execute("RELEASE final")
    return late


def _give_back(db: sqlite3.Connection, seq: int, outcome: Outcome, owner: int, now: float) -> bool:
    """One job that runs again, at once or later; False if it is not ours."""
    if isinstance(outcome, Retried):
        sql, values = (
            f"state = {RETRYING}, ready = ?, attempts = attempts + ?, owner = NULL",
            (now + outcome.after, outcome.counted),
        )
        return (
            db.execute(
                f"UPDATE job SET {sql} WHERE seq = ? AND owner = ?", (*values, seq, owner)
            ).rowcount
            == 1
        )
    return (
        db.execute(
            "UPDATE job SET state = 0, owner = NULL WHERE seq = ? AND owner = ?", (seq, owner)
        ).rowcount
        == 1
    )


def _remember(db: sqlite3.Connection, messages: Iterable[Message], now: float) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO known VALUES(?, ?)",
        [(one.id, now + one.remember) for one in messages],
    )


def bury(
    db: sqlite3.Connection, delivery: Delivery, outcome: Rejected, queue: str, now: float
) -> None:
    """Writes a dead letter. `queue`: where it goes when it is redriven."""
    message = delivery.message
    error = told(outcome.error)
    taken = db.execute("SELECT 1 FROM dead WHERE id = ?", (message.id,)).fetchone()
    db.execute(
        "INSERT INTO dead(id, address, handler, position, key, body, headers, reason, error_type,"
        " error, attempts, died_at, at, queue, task, uniq, remember, options, details)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new_id() if taken else message.id, delivery.address, delivery.handler,
            delivery.position, message.key, message.body, pack(message.headers),
            _text(outcome.reason), error.error_type, error.error, delivery.attempt, now,
            message.at, queue, message.task or delivery.handler, message.unique,
            message.remember, pack_options(message.options), error.details(),
        ),
    )  # fmt: skip


def _text(value: str) -> str:
    """Text as a column takes it: lone surrogates escaped."""
    return value.encode("utf-8", "backslashreplace").decode()


def free_all(db: sqlite3.Connection, dead: Mapping[int, bool], now: float) -> list[int]:
    """Gives back what processes had in hand that died, or (False) stand still; returns those that
    nobody had cleared away before."""
    return [n for n, died in dead.items() if (free(db, n, now) if died else withdraw(db, n))]


def free(db: sqlite3.Connection, n: int, now: float) -> bool:
    """Gives back what a dead process had in hand; what died with its third process is dead."""
    for row in db.execute(
        f"SELECT {COLUMNS} FROM job WHERE owner = ? AND state = 3 AND deaths >= ?", (n, DEATHS - 1)
    ).fetchall():
        delivery = _delivery(row, n)
        delivery.handler = delivery.message.task
        db.execute("DELETE FROM job WHERE seq = ?", (row[0],))
        bury(db, delivery, Rejected(f"its worker died {DEATHS} times"), row[12], now)
        counted(db, {Whose(row[12], delivery.handler): Counts(dead=1)})
        _remember(db, [delivery.message] if delivery.message.remember else [], now)
    db.execute("UPDATE job SET deaths = deaths + 1 WHERE owner = ? AND state = 3", (n,))
    return withdraw(db, n)


def withdraw(db: sqlite3.Connection, n: int) -> bool:
    """Takes a process's number away, and whatever still stands under it; False if there was
    none."""
    db.execute("UPDATE job SET state = 0, owner = NULL WHERE owner = ? AND state = 3", (n,))
    db.execute("UPDATE grp SET owner = NULL WHERE owner = ?", (n,))
    db.execute("DELETE FROM knows WHERE n = ?", (n,))
    return db.execute("DELETE FROM worker WHERE n = ?", (n,)).rowcount == 1


def release(db: sqlite3.Connection, seqs: Sequence[int], owner: int) -> None:
    db.execute(
        "UPDATE job SET state = 0, owner = NULL WHERE owner = ? AND seq IN (SELECT value FROM"
        " json_each(?))",
        (owner, _list(seqs)),
    )


def counted(db: sqlite3.Connection, counts: Mapping[Whose, Counts]) -> None:
    """Adds to the handlers' numbers."""
    sql = (
        "INSERT INTO count VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT(handler) DO UPDATE SET"
        " handled = handled + excluded.handled, retried = retried + excluded.retried,"
        " dead = dead + excluded.dead, skipped = skipped + excluded.skipped,"
        " refused = refused + excluded.refused, gaps = gaps + excluded.gaps"
    )
    db.executemany(
        sql,
        [
            (write(whose), one.handled, one.retried, one.dead, one.skipped, one.refused, one.gaps)
            for whose, one in counts.items()
        ],
    )


def _list(numbers: Iterable[int]) -> str:
    return str(list(numbers))  # JSON as well
