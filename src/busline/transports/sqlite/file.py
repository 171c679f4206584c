"""One thread, one connection: everything asked for at one moment shares one transaction, under one
lock."""

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
from busline.transports.sqlite.held import hold, let_go
from busline.transports.sqlite.schema import APPLICATION, LAYOUT, complete, create, layout

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb2",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "fuse",
}
LOCAL = {"fuse.fuse-overlayfs", "fuse.mergerfs"}  # other kinds of `fuse.` are taken for remote
SQLITE = (3, 37, 0)  # the first with STRICT tables
PATIENCE = 2.0  # seconds for which a turn waits for a foreign process's lock
PASSIVE, TRUNCATE = 16 << 20, 64 << 20  # bytes of write-ahead log at which it is checkpointed
BEAT = 2.0
MOUNTS, LOCKS = Path("/proc/self/mountinfo"), Path("/proc/locks")


class Busy(Unavailable):
    """Another process holds the file's lock."""


class Gone(Unavailable):
    """The file that was opened is no longer at its path."""


class Damaged(BuslineError):
    """The file is no usable database any more. No retry mends it."""


@dataclass(slots=True)
class Request:
    operation: Operation[Any]
    answer: "asyncio.Future[Any]"
    writes: bool


Answer = tuple[Request, Any, BaseException | None]


class File:
    """`write` and `read` run an operation on the thread; a write's are in one transaction, all or
    none.

    The lock beside the file is taken around every write, checkpoint, open and close: a checkpoint
    then never meets a commit that resets the log, which some SQLite releases do not survive."""

    def __init__(
        self, path: Path, sync: Literal["normal", "full"], beat: Callable[[], None]
    ) -> None:
        self.path, self._sync, self._beat = path, sync, beat
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Future[None]
        self._db: sqlite3.Connection
        self._lock: Lock
        self._identity: tuple[int, int] | None = None  # device and inode of what is open
        self._checkpointed = (
            0  # the size of the write-ahead log when this process last moved it into the file
        )
        self._open = False
        self._beaten = 0.0

    def __repr__(self) -> str:
        return f"<File {self.path}>"

    # --- on the loop -------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens or makes the file. Raises Invalid for one that cannot be used, Busy for one that is
        locked."""
        self._loop = asyncio.get_running_loop()
        self._requests = SimpleQueue()
        self._ended = self._loop.create_future()
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(
            target=self._run, args=(opened,), name=f"busline {self.path.name}", daemon=True
        ).start()
        try:
            await asyncio.shield(opened)
        except asyncio.CancelledError:
            self._requests.put(None)
            raise
        self._open = True

    async def close(self) -> None:
        """What was asked for is done first."""
        if self._open:
            self._open = False
            self._requests.put(None)
        await asyncio.shield(self._ended)

    async def write(self, operation: Operation[T]) -> T:
        """Its result, committed. Raises Unavailable when it was not. Cancelled, it may be done all
        the same."""
        return await self.ask_write(operation)

    async def read(self, operation: Operation[T]) -> T:
        return await self._ask(operation, False)

    def ask_write(self, operation: Operation[T]) -> "asyncio.Future[T]":
        """As `write`, without waiting for it."""
        return self._ask(operation, True)

    def _ask(self, operation: Operation[T], writes: bool) -> "asyncio.Future[T]":
        if not self._open:
            raise Unavailable(
                wrong(
                    self.path,
                    "an open engine",
                    "one that was closed",
                    "Use it inside its `async with`.",
                )
            )
        answer: asyncio.Future[T] = self._loop.create_future()
        self._requests.put(Request(operation, answer, writes))
        return answer

    def replaced(self) -> bool:
        """Whether there is a file at the path, and it is not the one that is open."""
        there = identity(self.path)
        return there is not None and (not self._open or there != self._identity)

    # --- on the thread -----------------------------------------------------------------------

    def _run(self, opened: "asyncio.Future[None]") -> None:
        try:
            self._connect()
        except Exception as error:  # whoever opens it hears of it
            self._tell(_fail, opened, error)
            return self._tell(_end, self._ended)
        self._tell(_end, opened)
        while (requests := self._next()) is not None:
            self._turn(requests)
        self._disconnect()
        self._tell(_end, self._ended)

    def _tell(self, call: Callable[..., None], *values: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *values)

    def _next(self) -> list[Request] | None:
        """Everything that is asked for by now; None at the end. Waits for the first, beating
        meanwhile."""
        while True:
            self._beat_now_and_then()
            try:
                first = self._requests.get(timeout=BEAT)
            except Empty:
                continue
            return None if first is None else self._together(first)

    def _beat_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._beaten >= BEAT:
            self._beaten = now
            with suppress(OSError):
                self._beat()

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
        answers += [self._read(one) for one in requests if not one.writes]
        self._tell(_deliver, answers)

    def _write(self, requests: list[Request]) -> list[Answer]:
        if not requests:
            return []
        try:
            return list(
                zip(requests, self._transaction(requests), [None] * len(requests), strict=True)
            )
        except Exception as error:  # whoever asked hears of it
            said = self._said(error)
        if len(requests) == 1 or isinstance(said, Busy | Gone):
            return [(one, None, said) for one in requests]
        # only the guilty one fails
        return [answer for one in requests for answer in self._write([one])]

    def _read(self, request: Request) -> Answer:
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                self._check_place()
                return request, request.operation(self._db), None
            except Exception as error:  # whoever asked hears of it
                said = self._said(error)
            if not isinstance(said, Busy) or time.monotonic() > limit:
                return request, None, said
            time.sleep(0.002)

    def _transaction(self, requests: list[Request]) -> list[Any]:
        with self._lock:
            begin(self._db)
            try:
                results = [one.operation(self._db) for one in requests]
                self._db.execute("COMMIT")
            except BaseException:  # all of a turn or none of it
                self._roll_back()
                raise
            with suppress(sqlite3.Error):  # the commit stands; the next turn tries again
                self._checkpoint()
        self._check_place()  # SQLite goes on writing to a deleted file without a word
        return results

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with suppress(sqlite3.Error):  # SQLite has done it by itself
                self._db.execute("ROLLBACK")

    def _checkpoint(self) -> None:
        """Moves the write-ahead log into the file, each time it has grown by 16 MB; cuts it at 64.

        At 4 MB one awaited publish in 200 would meet a checkpoint; at 16, one in 800."""
        try:
            size = os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return
        if size < PASSIVE:
            self._checkpointed = 0
        elif size - self._checkpointed >= PASSIVE or size < self._checkpointed:
            self._checkpointed = size
            self._db.execute(
                f"PRAGMA wal_checkpoint({'TRUNCATE' if size >= TRUNCATE else 'PASSIVE'})"
            ).fetchall()

    def _connect(self) -> None:
        if sqlite3.sqlite_version_info < SQLITE:
            raise Invalid(
                wrong(
                    "sqlite3",
                    "SQLite 3.37 or newer",
                    sqlite3.sqlite_version,
                    "Use a Python that is linked to a newer one.",
                )
            )
        refuse_network(self.path)
        try:
            self._lock = Lock(self.path)
            self._open_locked()
        except OSError as error:
            remedy = "Name another path, or mend the permissions."
            raise Invalid(
                wrong(
                    self.path,
                    "a file in a folder that can be written",
                    error.strerror or "another",
                    remedy,
                )
            ) from error

    def _open_locked(self) -> None:
        try:
            with self._lock:
                self._db = self._opened()
                self._identity = identity(self.path)
        except BaseException as error:  # whatever kept it from opening, the lock is free
            self._lock.close()
            if isinstance(error, sqlite3.Error):
                raise explain(error, self.path, True) from error
            raise
        self._beaten = time.monotonic()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            self._settle_in(db)
        except BaseException:  # whatever kept it from opening, the connection is closed
            db.close()
            raise
        return db

    def _settle_in(self, db: sqlite3.Connection) -> None:
        self._refuse_others(db)
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise Invalid(
                wrong(
                    self.path,
                    "a file system with shared memory",
                    "one without",
                    "Name a path on another disk of this machine.",
                )
            )
        db.execute(f"PRAGMA synchronous = {self._sync}")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        # a log that begins anew is cut: its size tells how much is in it
        db.execute("PRAGMA journal_size_limit = 0")
        begin(db)
        if layout(db) == 0:
            create(db)
        complete(db)
        # a write: says now whether the file can be written
        db.execute(f"PRAGMA user_version = {LAYOUT}")
        db.execute("COMMIT")

    def _refuse_others(self, db: sqlite3.Connection) -> None:
        found, tables = layout(db), db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]
        if tables and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise Invalid(
                wrong(
                    self.path,
                    "a file of busline, or none yet",
                    "a database of another program",
                    "Name another path.",
                )
            )
        if found > LAYOUT:
            raise Invalid(
                wrong(
                    self.path,
                    f"layout {LAYOUT} or older",
                    f"layout {found}, of a newer busline",
                    "Upgrade busline, or name another file.",
                )
            )

    def _disconnect(self) -> None:
        with suppress(BuslineError, sqlite3.Error, OSError), self._lock:
            self._db.close()
        with suppress(sqlite3.Error):
            self._db.close()
        self._lock.close()

    def _check_place(self) -> None:
        """Raises Gone if what is open is not what others find at the path."""
        if identity(self.path) != self._identity:
            raise Gone(
                wrong(
                    self.path,
                    "the file that was opened",
                    "none or another",
                    "Put it back: it was moved or deleted. It goes on by itself.",
                )
            )

    def _said(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            return explain(error, self.path, False)
        if isinstance(error, OSError):
            return Unavailable(
                wrong(
                    self.path,
                    "a folder that can be written",
                    error.strerror or str(error),
                    "Mend it: it goes on by itself.",
                )
            )
        if isinstance(error, (UnicodeError, OverflowError)):
            return Invalid(
                wrong(
                    "message",
                    "text that UTF-8 can carry and numbers of 64 bits",
                    str(error),
                    "Correct what is sent.",
                )
            )
        return error


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None where no file can be found."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _end(answer: "asyncio.Future[None]") -> None:
    if not answer.done():
        answer.set_result(None)


def _fail(answer: "asyncio.Future[Any]", error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


def _deliver(answers: list[Answer]) -> None:
    for request, result, error in answers:
        if request.answer.done():
            continue
        if error is None:
            request.answer.set_result(result)
        else:
            request.answer.set_exception(error)


class Lock:
    """The lock beside the file. Raises Busy when others hold it for too long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = hold(Path(f"{path}.lock"), os.O_RDWR | os.O_CREAT)

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def _wait(self) -> None:
        limit, pause = time.monotonic() + PATIENCE, 0.0001
        while time.monotonic() < limit:
            time.sleep(pause)
            with suppress(BlockingIOError):
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pause = min(pause * 1.5, 0.002)
        raise Busy(
            wrong(
                self._path,
                "a database that can be written",
                f"one that {self._holder()} has locked",
                "Is it stopped? Continue or end it.",
            )
        )

    def _holder(self) -> str:
        """The process that has it, as the kernel tells."""
        end = f":{os.fstat(self._descriptor).st_ino}"
        with suppress(OSError, IndexError):
            for line in LOCKS.read_text().splitlines():
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5].endswith(end):
                    return f"process {fields[4]}"
        return "another process"

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        let_go(self._descriptor)


def begin(db: sqlite3.Connection) -> None:
    """Begins a write. Waits for a foreign program's write, as `sqlite3` or a backup may hold, then
    raises."""
    limit = time.monotonic() + PATIENCE
    if db.in_transaction:
        db.execute("ROLLBACK")  # it could not be rolled back when it failed
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > limit:
                raise
            time.sleep(0.002)


def explain(error: sqlite3.Error, path: Path, opening: bool) -> Exception:
    """SQLite's error as one of ours."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(
            wrong(
                path,
                "a database that can be written",
                "one that another program has locked",
                "End that program's transaction.",
            )
        )
    if name == "SQLITE_FULL":
        return Unavailable(
            wrong(
                path,
                "room on the disk",
                "a full one",
                "Free some: nothing was lost, this write was not done.",
            )
        )
    if name.startswith("SQLITE_READONLY") or (
        opening and name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM"))
    ):
        return Invalid(
            wrong(
                path,
                "a file that can be written",
                "a read-only one",
                "Mend the permissions, or name another path.",
            )
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        kind = Invalid if opening else Damaged
        return kind(
            wrong(
                path,
                "a SQLite database",
                f"a damaged or another file ({error})",
                "Restore it from a copy, or move it away to begin afresh.",
            )
        )
    if name.startswith("SQLITE_TOOBIG"):
        return Invalid(
            wrong(
                path,
                "a message that fits a row",
                "a larger one",
                "Store it elsewhere and send its address.",
            )
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_NOMEM", "SQLITE_PROTOCOL")):
        return Unavailable(
            wrong(
                path,
                "a file that can be opened",
                str(error),
                "Look for a limit of open files or memory: it goes on by itself.",
            )
        )
    if name.startswith("SQLITE_IOERR"):
        return Unavailable(
            wrong(
                path,
                "a disk that works",
                str(error),
                "Look at the machine's log: nothing is known of this write.",
            )
        )
    return Damaged(
        wrong(
            path,
            "a database of busline",
            f"{name or type(error).__name__}: {error}",
            "Move the file away, or report this.",
        )
    )


def refuse_network(path: Path) -> None:
    """Raises Invalid for a file system without the shared memory that SQLite's write-ahead log
    needs."""
    try:
        mounts = MOUNTS.read_text().splitlines()
    except OSError:
        return
    folder = str(path.parent.resolve())
    found = ("", "")
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        if (folder == point or folder.startswith(point.rstrip("/") + "/")) and len(point) >= len(
            found[0]
        ):
            found = point, rest.split()[0]
    if found[1] in NETWORK or (found[1].startswith("fuse.") and found[1] not in LOCAL):
        raise Invalid(
            wrong(
                path,
                "a file on a disk of this machine",
                f"one on {found[1]}",
                "Name a local path: SQLite loses writes on network file systems.",
            )
        )
