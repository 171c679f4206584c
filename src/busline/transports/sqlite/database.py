"""The file while it is open, as its one thread uses it."""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from busline.core.errors import BuslineError, wrong
from busline.transports.sqlite import lock
from busline.transports.sqlite.errors import Busy, Gone, Outdated, translated, translating
from busline.transports.sqlite.lock import Lock, begin
from busline.transports.sqlite.opening import Sync, check_machine, connect
from busline.transports.sqlite.schema import layout
from busline.transports.sqlite.steps import LAYOUT

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
PASSIVE, TRUNCATE = 16 << 20, 64 << 20  # bytes of write-ahead log at which it is checkpointed


class Database:
    """One connection and one lock. Between two calls no transaction is open and the lock is free.

    Raises Invalid for a file that cannot be used, Busy for one that is locked."""

    def __init__(self, path: Path, sync: Sync) -> None:
        self._path = path
        # the size of the write-ahead log when this process last moved it into the file
        self._checkpointed = 0
        check_machine(path)
        with translating(path):
            self._lock = Lock(path)
            try:
                with self._lock:
                    self.connection = connect(path, sync)
                    self._identity = identity(path)
            except BaseException:  # whatever kept it from opening, the lock is free
                self._lock.close()
                raise

    def close(self) -> None:
        with suppress(BuslineError, sqlite3.Error, OSError), self._lock:
            self.connection.close()
        with suppress(sqlite3.Error):
            self.connection.close()
        self._lock.close()

    def write(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """The results of all of them, in one transaction: committed, all or none. Raises whatever
        one of them raises."""
        with self._lock:
            begin(self.connection)
            try:
                self._check_layout()
                results = [operation(self.connection) for operation in operations]
                self.connection.execute("COMMIT")
            except BaseException:  # all of a turn or none of it
                self._roll_back()
                raise
            with suppress(sqlite3.Error):  # the commit stands; the next turn tries again
                self._checkpoint()
        self._check_place()  # SQLite goes on writing to a deleted file without a word
        return results

    def read(self, operation: Operation[T]) -> T:
        """Its result. Waits while the file is locked, then raises Busy."""
        limit = time.monotonic() + lock.PATIENCE
        while True:
            try:
                self._check_place()
                return operation(self.connection)
            except sqlite3.Error as error:
                meant = translated(error, self._path)
                if not isinstance(meant, Busy) or time.monotonic() > limit:
                    raise
            time.sleep(0.002)

    def is_at(self, path: Path) -> bool:
        """Whether what is at this path is the file that is open."""
        return identity(path) == self._identity

    def _check_place(self) -> None:
        """Raises Gone if what is open is not what others find at the path."""
        if not self.is_at(self._path):
            expected, got = "the file that was opened", "none or another"
            remedy = "Put it back: it was moved or deleted. It goes on by itself."
            raise Gone(wrong(self._path, expected, got, remedy))

    def _check_layout(self) -> None:
        """Raises Outdated if another process has changed the tables."""
        if (found := layout(self.connection)) != LAYOUT:
            got = f"layout {found}, which a newer busline made meanwhile"
            remedy = "Upgrade busline here as well, and start again."
            raise Outdated(wrong(self._path, f"layout {LAYOUT}", got, remedy))

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with suppress(sqlite3.Error):  # SQLite has done it by itself
                self.connection.execute("ROLLBACK")

    def _checkpoint(self) -> None:
        """Moves the write-ahead log into the file, each time it has grown by 16 MB; cuts it at 64.

        At 4 MB one awaited publish in 200 would meet a checkpoint; at 16, one in 800."""
        try:
            size = os.stat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            return
        if size < PASSIVE:
            self._checkpointed = 0
        elif size - self._checkpointed >= PASSIVE or size < self._checkpointed:
            self._checkpointed = size
            kind = "TRUNCATE" if size >= TRUNCATE else "PASSIVE"
            self.connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None where no file can be found."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
