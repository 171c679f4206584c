"""What a file must be before it is trusted with jobs and records, and how it is settled into."""

import re
import sqlite3
from pathlib import Path
from typing import Literal, TypeAlias

from busline.core.errors import Invalid, wrong
from busline.transports.sqlite.lock import begin
from busline.transports.sqlite.schema import APPLICATION, layout
from busline.transports.sqlite.steps import LAYOUT, climb

Sync: TypeAlias = Literal["normal", "full"]
SQLITE = (3, 37, 0)  # the first with STRICT tables
NETWORK = re.compile(r"(nfs4?|cifs|smb[23]|smbfs|9p|afs|ceph|glusterfs|lustre|fuse)$")
LOCAL = {"fuse.fuse-overlayfs", "fuse.mergerfs"}  # other kinds of `fuse.` are taken for remote
MOUNTS = Path("/proc/self/mountinfo")


def check_machine(path: Path) -> None:
    """Raises Invalid where no file at this path could be used."""
    if sqlite3.sqlite_version_info < SQLITE:
        remedy = "Use a Python that is linked to a newer one."
        raise Invalid(wrong("sqlite3", "SQLite 3.37 or newer", sqlite3.sqlite_version, remedy))
    kind = _file_system(path)
    if NETWORK.match(kind) or (kind.startswith("fuse.") and kind not in LOCAL):
        remedy = "Name a local path: SQLite loses writes on network file systems."
        raise Invalid(wrong(path, "a file on a disk of this machine", f"one on {kind}", remedy))


def _file_system(path: Path) -> str:
    """Of which kind it is; empty where the kernel does not tell."""
    try:
        mounts = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    folder = str(path.parent.resolve())
    found = ("", "")
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = point, rest.split()[0]
    return found[1]


def connect(path: Path, sync: Sync) -> sqlite3.Connection:
    """Opens the file, or makes it; brings it to today's layout. Call it under the lock. Raises
    Invalid for a file that is not ours to use."""
    db = sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        _settle_in(db, path, sync)
    except BaseException:  # whatever kept it from opening, the connection is closed
        db.close()
        raise
    return db


def _settle_in(db: sqlite3.Connection, path: Path, sync: Sync) -> None:
    _refuse_others(db, path)
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        remedy = "Name a path on another disk of this machine."
        raise Invalid(wrong(path, "a file system with shared memory", "one without", remedy))
    db.execute(f"PRAGMA synchronous = {sync}")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    # a log that begins anew is cut: its size tells how much is in it
    db.execute("PRAGMA journal_size_limit = 0")
    begin(db)  # says now whether the file can be written
    climb(db)
    db.execute("COMMIT")


def _refuse_others(db: sqlite3.Connection, path: Path) -> None:
    """Before anything is written."""
    found, tables = layout(db), db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]
    if tables and db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        expected, got = "a file of busline, or none yet", "a database of another program"
        raise Invalid(wrong(path, expected, got, "Name another path."))
    if found > LAYOUT:
        expected, got = f"layout {LAYOUT} or older", f"layout {found}, of a newer busline"
        raise Invalid(wrong(path, expected, got, "Upgrade busline, or name another file."))
