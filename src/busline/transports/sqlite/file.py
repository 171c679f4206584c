"""One thread, one connection: everything asked for at one moment shares one transaction, under one lock."""

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

from busline.core.errors import BuslineError, Invalid, Unavailable, wrong
from busline.transports.sqlite.schema import LAYOUT, create, layout

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
PATIENCE = 2.0  # seconds for which a turn waits for a foreign process's lock
PASSIVE, TRUNCATE = 4 << 20, 64 << 20  # bytes of write-ahead log at which it is checkpointed
BEAT = 2.0
MOUNTS = Path("/proc/self/mountinfo")


class Busy(Unavailable):
    """Another process holds the file's lock."""


class Damaged(BuslineError):
    """The file is no usable database any more. No retry mends it."""


@dataclass(slots=True)
class Request:
    operation: Operation[Any]
    answer: "asyncio.Future[Any]"
    writes: bool


class File:
    """`write` and `read` run an operation on the thread; a write's are in one transaction, all or none.

    The lock beside the file is taken around every write, checkpoint, open and close: a checkpoint then never meets a
    commit that resets the log, which some SQLite releases do not survive.
    """

    def __init__(self, path: Path, sync: Literal["normal", "full"], beat: Callable[[], None]) -> None:
        self.path, self._sync, self._beat = path, sync, beat
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"busline {path.name}", daemon=True)
        self._db: sqlite3.Connection
        self._checkpointed = 0

    def __repr__(self) -> str:
        return f"<File {self.path}>"

    # --- on the loop ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens or makes the file. Raises Invalid for one that cannot be used, Busy for one that is locked."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._connect)
        self._thread.start()

    async def close(self) -> None:
        """What was asked for is done first."""
        self._requests.put(None)
        await asyncio.to_thread(self._thread.join)

    async def write(self, operation: Operation[T]) -> T:
        """Its result, committed. Raises Unavailable when it was not. Cancelled, it may be done all the same."""
        return await self.ask_write(operation)

    async def read(self, operation: Operation[T]) -> T:
        return await self._ask(operation, False)

    def ask_write(self, operation: Operation[T]) -> "asyncio.Future[T]":
        """As `write`, without waiting for it."""
        return self._ask(operation, True)

    def _ask(self, operation: Operation[T], writes: bool) -> "asyncio.Future[T]":
        answer: asyncio.Future[T] = self._loop.create_future()
        self._requests.put(Request(operation, answer, writes))
        return answer

    # --- on the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        last = 0.0
        while True:
            now = time.monotonic()
            if now - last >= BEAT:
                self._beat()
                last = now
            try:
                request = self._requests.get(timeout=BEAT)
            except Empty:
                continue
            if request is None:
                return self._disconnect()
            self._turn(self._together(request))

    def _together(self, first: Request) -> list[Request]:
        """Whatever was asked for meanwhile, up to the end."""
        found = [first]
        while not self._requests.empty():
            request = self._requests.get()
            if request is None:
                self._requests.put(None)
                break
            found.append(request)
        return found

    def _turn(self, requests: list[Request]) -> None:
        answers = self._write([one for one in requests if one.writes])
        answers += [self._attempt(one, self._db) for one in requests if not one.writes]
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_deliver, answers)

    def _write(self, requests: list[Request]) -> list[tuple[Request, Any, BaseException | None]]:
        if not requests:
            return []
        try:
            return list(zip(requests, self._transaction(requests), [None] * len(requests), strict=True))
        except (sqlite3.Error, BuslineError) as error:
            if len(requests) == 1 or isinstance(error, Busy):
                return [(one, None, self._said(error)) for one in requests]
            return [answer for one in requests for answer in self._write([one])]  # only the guilty one fails

    def _attempt(self, request: Request, db: sqlite3.Connection) -> tuple[Request, Any, BaseException | None]:
        try:
            return request, request.operation(db), None
        except (sqlite3.Error, BuslineError) as error:
            return request, None, self._said(error)

    def _transaction(self, requests: list[Request]) -> list[Any]:
        with Lock(self._lock):
            begin(self._db)
            try:
                results = [one.operation(self._db) for one in requests]
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._checkpoint()
        return results

    def _checkpoint(self) -> None:
        try:
            size = os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return
        if size >= PASSIVE:
            mode = "TRUNCATE" if size >= TRUNCATE else "PASSIVE"
            if size >= TRUNCATE or size - self._checkpointed >= PASSIVE or size < self._checkpointed:
                self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
                self._checkpointed = size

    def _connect(self) -> None:
        refuse_network(self.path)
        try:
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with Lock(self._lock):
                self._open()
        except OSError as error:
            raise Invalid(
                wrong(self.path, "a file in a folder that can be written", error.strerror or "another", "Name another path, or mend the permissions.")
            ) from error
        except sqlite3.Error as error:
            raise self._said(error, opening=True) from error

    def _open(self) -> None:
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
        try:
            self._settle_in(db)
        except BaseException:
            db.close()
            raise
        self._db = db

    def _settle_in(self, db: sqlite3.Connection) -> None:
        found = layout(db)
        if found > LAYOUT:
            raise Invalid(wrong(self.path, f"layout {LAYOUT} or older", f"layout {found}, of a newer busline", "Upgrade busline, or name another file."))
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute(f"PRAGMA synchronous = {self._sync}")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        begin(db)
        if layout(db) == 0:
            create(db)
        db.execute("INSERT INTO fact VALUES('open', x'', 0) ON CONFLICT(key) DO UPDATE SET until = 0")  # says now whether it can be written
        db.execute("COMMIT")

    def _disconnect(self) -> None:
        try:
            with Lock(self._lock):
                self._db.close()
        except BuslineError:
            self._db.close()
        os.close(self._lock)

    def _said(self, error: Exception, *, opening: bool = False) -> Exception:
        if isinstance(error, sqlite3.Error):
            return explain(error, self.path, opening)
        return error


def _deliver(answers: list[tuple[Request, Any, BaseException | None]]) -> None:
    for request, result, error in answers:
        if request.answer.done():
            continue
        if error is None:
            request.answer.set_result(result)
        else:
            request.answer.set_exception(error)


class Lock:
    """The lock beside the file. Raises Busy when others hold it for too long."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        limit, pause = time.monotonic() + PATIENCE, 0.0001
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise Busy("The lock beside the database is held by another process: is one stopped in the middle of a write?") from None
                time.sleep(pause)
                pause = min(pause * 1.5, 0.002)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def begin(db: sqlite3.Connection) -> None:
    """Begins a write. Waits for a foreign program's write, as `sqlite3` or a backup may hold, then raises Busy."""
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > limit:
                raise
            time.sleep(0.002)


def explain(error: sqlite3.Error, path: Path, opening: bool) -> Exception:
    """SQLite's error as one of ours."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(wrong(path, "a database that can be written", "one that another program has locked", "End that program's transaction."))
    if name == "SQLITE_FULL":
        return Unavailable(wrong(path, "room on the disk", "a full one", "Free some: nothing was lost, this write was not done."))
    if name.startswith("SQLITE_READONLY") or (opening and name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM"))):
        return Invalid(wrong(path, "a file that can be written", "a read-only one", "Mend the permissions, or name another path."))
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        kind = Invalid if opening else Damaged
        return kind(wrong(path, "a SQLite database", f"a damaged or another file ({error})", "Restore it from a copy, or move it away to begin afresh."))
    if name.startswith("SQLITE_IOERR"):
        return Unavailable(wrong(path, "a disk that works", str(error), "Look at the machine's log: nothing is known of this write."))
    return Damaged(wrong(path, "a database of busline", f"{name or type(error).__name__}: {error}", "Move the file away, or report this."))


def refuse_network(path: Path) -> None:
    """Raises Invalid for a file system without the shared memory that SQLite's write-ahead log needs."""
    try:
        mounts = MOUNTS.read_text().splitlines()
    except OSError:
        return
    folder = str(path.parent.resolve())
    found = ("", "")
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        if (folder == point or folder.startswith(point.rstrip("/") + "/")) and len(point) >= len(found[0]):
            found = point, rest.split()[0]
    if found[1] in NETWORK:
        raise Invalid(wrong(path, "a file on a disk of this machine", f"one on {found[1]}", "Name a local path: SQLite loses writes on network file systems."))
