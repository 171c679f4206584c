"""The engines: what an App may name, as a URL or with typed options. A client is imported when its engine opens."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import SplitResult, unquote, urlsplit

from busline.core.clock import Clock
from busline.core.errors import ConfigError, Invalid, wrong
from busline.core.ports import Transport

Sync: TypeAlias = Literal["normal", "full"]
NOT_YET = ("rediss", "kafka+ssl")
FORMS = "memory://, sqlite:///relative, sqlite:////absolute, redis://host or kafka://host,host"


class Engine:
    """What carries streams, jobs or both. `server`: others reach it from other machines."""

    server = False
    topics = True
    queues = True

    def __str__(self) -> str:
        """Its URL, without secrets."""
        raise NotImplementedError

    def open(self, clock: Clock) -> Transport:
        """Its transport, not yet entered. Raises Invalid when its client is not installed."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Memory(Engine):
    """This process's memory: gone with it."""

    def __str__(self) -> str:
        return "memory://"

    def open(self, clock: Clock) -> Transport:
        from busline.transports.memory import MemoryTransport

        return MemoryTransport(clock)


@dataclass(frozen=True, slots=True)
class Sqlite(Engine):
    """A file on this machine's disk. `sync="full"` survives a power loss, at a price for every write."""

    path: str | Path
    sync: Sync = "normal"

    def __post_init__(self) -> None:
        if self.sync not in get_args(Sync):
            raise Invalid(wrong(str(self), "sync=normal or sync=full after the `?`", f"sync={self.sync}", "Leave it out for normal."))

    def __str__(self) -> str:
        return f"sqlite:///{Path(self.path).resolve()}"

    def open(self, clock: Clock) -> Transport:
        from busline.transports.sqlite import SqliteTransport

        return SqliteTransport(Path(self.path).absolute(), sync=self.sync, clock=clock)


@dataclass(frozen=True, slots=True)
class Embedded(Sqlite):
    """The file that an App uses when nothing is named: its folder is made, and kept out of version control."""

    def open(self, clock: Clock) -> Transport:
        folder = Path(self.path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (ignore := folder / ".gitignore").exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise ConfigError([wrong(folder, "a folder that can be written", error.strerror or str(error), "Set BUSLINE_HOME to one that can.")]) from error
        return Sqlite.open(self, clock)


# --- URLs ------------------------------------------------------------------------------------------------------


def engine(url: str) -> Engine:
    """The engine that a URL names. Raises Invalid for a URL that names none."""
    parts = _split(url)
    if parts.scheme in NOT_YET:
        raise Invalid(wrong(shown(url), f"{parts.scheme.removesuffix('s').removesuffix('+ss')}://", "an encrypted connection", "TLS is not there yet."))
    if parts.scheme not in READ:
        raise Invalid(wrong(shown(url), FORMS, f"'{parts.scheme}://'", "Correct the URL."))
    return READ[parts.scheme](url, parts)


def shown(url: str) -> str:
    """A URL without its secrets."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2] if '@' in rest else rest}"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise Invalid(wrong(shown(url), FORMS, str(error), "Correct the URL.")) from error


def _memory(url: str, parts: SplitResult) -> Engine:
    return Memory()


def _sqlite(url: str, parts: SplitResult) -> Engine:
    location, _, query = url.removeprefix("sqlite://").partition("?")
    if not location.startswith("/") or len(location) < 2:
        raise Invalid(wrong(shown(url), "sqlite:///relative or sqlite:////absolute", "no path", "Write three slashes and a path."))
    name, _, sync = query.partition("=")
    if query and (name != "sync" or sync not in get_args(Sync)):
        raise Invalid(wrong(shown(url), "sync=normal or sync=full after the `?`", query, "Leave it out for normal."))
    return Sqlite(unquote(location[1:]), "full" if sync == "full" else "normal")


READ: dict[str, Callable[[str, SplitResult], Engine]] = {"memory": _memory, "sqlite": _sqlite}
