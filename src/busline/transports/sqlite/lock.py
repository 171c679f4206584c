"""The lock beside the file, and the wait for one that a foreign program holds inside it."""

import fcntl
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from busline.core.errors import wrong
from busline.transports.sqlite.errors import Busy
from busline.transports.sqlite.held import hold, let_go

PATIENCE = 2.0  # seconds for which either is waited for
HELD = Path("/proc/locks")


class Lock:
    """Taken around every write, checkpoint, open and close: a checkpoint then never meets a commit
    that resets the log, which some SQLite releases do not survive. Raises Busy when others hold it
    for too long."""

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
        got = f"one that {self._holder()} has locked"
        remedy = "Is it stopped? Continue or end it."
        raise Busy(wrong(self._path, "a database that can be written", got, remedy))

    def _holder(self) -> str:
        """The process that has it, as the kernel tells."""
        end = f":{os.fstat(self._descriptor).st_ino}"
        with suppress(OSError, IndexError):
            for line in HELD.read_text().splitlines():
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
