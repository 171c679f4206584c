"""What SQLite and the operating system say of a file, in busline's words."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from busline.core.errors import BuslineError, Invalid, Unavailable, wrong


class Busy(Unavailable):
    """Another process holds the file's lock."""


class Gone(Unavailable):
    """The file that was opened is no longer at its path."""


class Damaged(BuslineError):
    """The file is no usable database any more. No retry mends it."""


class Outdated(BuslineError):
    """A newer busline changed the file's tables while it was open. No retry mends it."""


class Meaning(NamedTuple):
    """What one kind of SQLite's errors means. `got` may show the error's own text."""

    names: tuple[str, ...]  # how the error's name begins
    kind: type[BuslineError]
    expected: str
    got: str
    remedy: str


DATABASE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
RESTORE = "Restore it from a copy, or move it away to begin afresh."
READ_ONLY = (
    Invalid,
    "a file that can be written",
    "a read-only one",
    "Mend the permissions, or name another path.",
)
AT_OPENING = (  # these first, while the file is opened
    Meaning(("SQLITE_CANTOPEN", "SQLITE_PERM"), *READ_ONLY),
    Meaning(DATABASE, Invalid, "a SQLite database", "a damaged or another file ({error})", RESTORE),
)
ALWAYS = (
    Meaning(
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        Busy,
        "a database that can be written",
        "one that another program has locked",
        "End that program's transaction.",
    ),
    Meaning(
        ("SQLITE_FULL",),
        Unavailable,
        "room on the disk",
        "a full one",
        "Free some: nothing was lost, this write was not done.",
    ),
    Meaning(("SQLITE_READONLY",), *READ_ONLY),
    Meaning(DATABASE, Damaged, "a SQLite database", "a damaged or another file ({error})", RESTORE),
    Meaning(
        ("SQLITE_TOOBIG",),
        Invalid,
        "a message that fits a row",
        "a larger one",
        "Store it elsewhere and send its address.",
    ),
    Meaning(
        ("SQLITE_CANTOPEN", "SQLITE_NOMEM", "SQLITE_PROTOCOL"),
        Unavailable,
        "a file that can be opened",
        "{error}",
        "Look for a limit of open files or memory: it goes on by itself.",
    ),
    Meaning(
        ("SQLITE_IOERR",),
        Unavailable,
        "a disk that works",
        "{error}",
        "Look at the machine's log: nothing is known of this write.",
    ),
)


@contextmanager
def translating(path: Path) -> Generator[None]:
    """While the file is opened: its errors are raised as ours."""
    try:
        yield
    except OSError as error:
        got, remedy = error.strerror or "another", "Name another path, or mend the permissions."
        raise Invalid(wrong(path, "a file in a folder that can be written", got, remedy)) from error
    except sqlite3.Error as error:
        raise _meant(error, path, (*AT_OPENING, *ALWAYS)) from error


def translated(error: Exception, path: Path) -> Exception:
    """An error of a file that is open, as one of ours; any other as it is."""
    if isinstance(error, sqlite3.Error):
        return _meant(error, path, ALWAYS)
    if isinstance(error, OSError):
        got = error.strerror or str(error)
        return Unavailable(
            wrong(path, "a folder that can be written", got, "Mend it: it goes on by itself.")
        )
    if isinstance(error, (UnicodeError, OverflowError)):
        expected = "text that UTF-8 can carry and numbers of 64 bits"
        return Invalid(wrong("message", expected, str(error), "Correct what is sent."))
    return error


def _meant(error: sqlite3.Error, path: Path, meanings: tuple[Meaning, ...]) -> BuslineError:
    name = getattr(error, "sqlite_errorname", "")
    for _, kind, expected, got, remedy in (one for one in meanings if name.startswith(one.names)):
        return kind(wrong(path, expected, got.format(error=error), remedy))
    got = f"{name or type(error).__name__}: {error}"
    return Damaged(wrong(path, "a database of busline", got, "Move the file away, or report this."))
