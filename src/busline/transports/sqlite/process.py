"""Who is alive, and how they wake each other: a locked file and a pipe for each process."""

import contextlib
import fcntl
import math
import os
import sqlite3
import time
from pathlib import Path

from busline.transports.sqlite.held import hold, let_go

SECOND = 10**9
PAUSE, GRACE = 5 * SECOND, 6 * SECOND
# nanoseconds: a folder that changed so lately may change again within the same tick of its clock
FRESH = SECOND


class Process:
    """This process as the others see it: a number, a lock held as long as it lives, its last beat,
    a pipe.

    The number is the fence: what stands under it in the file is this process's only as long as its
    row is there."""

    def __init__(self, database: Path) -> None:
        self.folder = Path(f"{database}.workers")
        self.n = 0
        self.pipe = -1
        self._lock = -1
        self._others: list[Path] = []
        self._listed = 0
        self._looked = self._resumed = 0

    def __repr__(self) -> str:
        return f"<Process {self.n}>"

    def register(self, db: sqlite3.Connection) -> None:
        """Takes a new number, inside a transaction: no other process sees the number before its
        lock."""
        self.close()
        self.folder.mkdir(exist_ok=True)
        self.n = self._free_number(db)
        remove(self.folder, self.n)  # of one that died between making them and its commit
        self._lock = hold(self._path("lock"), os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.beat()
        self._looked = ticks()
        os.mkfifo(self._path("wake"))
        self.pipe = hold(self._path("wake"), os.O_RDWR | os.O_NONBLOCK)

    def _free_number(self, db: sqlite3.Connection) -> int:
        """One that no living process has, not even by another file that was at this path."""
        n = db.execute("INSERT INTO worker(pid) VALUES(?)", (os.getpid(),)).lastrowid or 0
        if self._died(n, math.inf):
            return n
        db.execute("DELETE FROM worker WHERE n = ?", (n,))
        return self._free_number(db)

    def _path(self, what: str) -> Path:
        return self.folder / f"{self.n}.{what}"

    def beat(self) -> None:
        """Says that this process is not frozen. A plain write to its own file, no transaction."""
        if self._lock >= 0:
            os.pwrite(self._lock, b"%020d" % ticks(), 0)

    def close(self) -> None:
        """Gives the lock up and removes its files. Only where no other thread beats: see
        `register`."""
        for descriptor in (self.pipe, self._lock):
            if descriptor >= 0:
                let_go(descriptor)
        self._lock = self.pipe = -1
        remove(self.folder, self.n)
        self.n = 0

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.pipe, 4096)

    def wake_others(self) -> None:
        """One byte for every other process: look again. Whoever it does not reach looks once a
        second."""
        with contextlib.suppress(OSError):
            changed = os.stat(self.folder).st_mtime_ns
            if changed != self._listed:
                self._others = [
                    self.folder / one
                    for one in os.listdir(self.folder)
                    if one.endswith(".wake") and one != f"{self.n}.wake"
                ]
                self._listed = changed if time.time_ns() - changed > FRESH else 0
            for pipe in self._others:
                poke(pipe)

    def dead(self, others: list[int], lease: float) -> dict[int, bool]:
        """Those of these processes that ended (True), or have not beaten for `lease` seconds
        (False).

        One that has not looked for a while was stopped itself, perhaps with the whole machine: then
        the others get a moment to beat before they are judged."""
        now = ticks()
        if now - self._looked > PAUSE:
            self._resumed = now
        self._looked = now
        limit = lease if now - self._resumed > GRACE else math.inf
        return {n: died for n in others if (died := self._died(n, limit)) is not None}

    def _died(self, n: int, lease: float) -> bool | None:
        """Whether it ended, or only stands still; None: it lives."""
        try:
            lock = hold(self.folder / f"{n}.lock", os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            beaten = os.pread(lock, 20, 0)
            return False if beaten and ticks() - int(beaten) > lease * SECOND else None
        finally:
            let_go(lock)


def ticks() -> int:
    """Nanoseconds since the machine started, sleep included: the same for all its processes."""
    return (
        time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic_ns()
    )


def remove(folder: Path, n: int) -> None:
    for what in ("wake", "lock"):
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{n}.{what}").unlink()


def poke(pipe: Path) -> None:
    """A byte into a pipe; nobody reads it: its process is gone. Full: it will look anyway."""
    with contextlib.suppress(OSError):
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"!")
        finally:
            os.close(descriptor)
