"""The engines: what an App may name, as a URL or with typed options. A client is imported when its
engine opens."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import parse_qsl, quote, unquote

from busline.core.clock import Clock, Seconds, seconds
from busline.core.errors import ConfigError, Invalid, wrong
from busline.core.options import duration, whole
from busline.core.ports import Transport

Sync: TypeAlias = Literal["normal", "full"]
NOT_YET = {"rediss": "redis://", "kafka+ssl": "kafka://"}
FORMS = "memory://, sqlite:///relative, sqlite:////absolute, redis://host or kafka://host,host"


class Engine:
    """What carries streams, jobs or both. `server`: others reach it from other machines."""

    server = False
    topics = True
    queues = True

    def __str__(self) -> str:
        """Its URL, without secrets."""
        raise NotImplementedError

    def creating_topics(self) -> "Engine":
        """The same engine, where missing topics are made. The embedded ones make them anyway."""
        return self

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
    """A file on this machine's disk. `sync="full"` survives a power loss, at a price for every
    write."""

    path: str | Path
    sync: Sync = "normal"

    def __post_init__(self) -> None:
        if self.sync not in get_args(Sync):
            raise Invalid(
                wrong(
                    str(self),
                    "sync=normal or sync=full after the `?`",
                    f"sync={self.sync}",
                    "Leave it out for normal.",
                )
            )

    def __str__(self) -> str:
        return f"sqlite:///{Path(self.path).resolve()}"

    def open(self, clock: Clock) -> Transport:
        from busline.transports.sqlite import SqliteTransport

        return SqliteTransport(Path(self.path).absolute(), sync=self.sync, clock=clock)


@dataclass(frozen=True, slots=True)
class Embedded(Sqlite):
    """The file that an App uses when nothing is named: its folder is made, and kept out of version
    control."""

    def open(self, clock: Clock) -> Transport:
        folder = Path(self.path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (ignore := folder / ".gitignore").exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise ConfigError(
                [
                    wrong(
                        folder,
                        "a folder that can be written",
                        error.strerror or str(error),
                        "Set BUSLINE_HOME to one that can.",
                    )
                ]
            ) from error
        return Sqlite.open(self, clock)


@dataclass(frozen=True, slots=True)
class Redis(Engine):
    """A Redis, 6.2 or newer, or a Valkey; it carries jobs. `username`, `password`: instead of the
    URL's. `lease`: seconds after which the jobs of a worker that is silent go to others.
    `namespace`: what all its keys begin with."""

    url: str = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    lease: Seconds = 20.0
    namespace: str = "busline"

    server = True
    topics = False

    def __post_init__(self) -> None:
        duration("lease", self.lease, zero=False, place=str(self))

    def __str__(self) -> str:
        return shown(self.url)

    def open(self, clock: Clock) -> Transport:
        with _client("redis"):
            from busline.transports.redis import RedisTransport
        return RedisTransport(
            self._url(), namespace=self.namespace, lease=seconds(self.lease), clock=clock
        )

    def _url(self) -> str:
        """The URL, with the login that was given beside it."""
        if self.username is None and self.password is None:
            return self.url
        scheme, _, rest = self.url.partition("://")
        user, password = (quote(one or "", safe="") for one in (self.username, self.password))
        return f"{scheme}://{user}:{password}@{rest.rpartition('@')[2]}"


class Kafka(Engine):
    """A Kafka cluster; it carries streams. `session`: seconds after which the partitions of a
    worker that is silent go to others. `drain`: seconds in which a worker ends what it has in hand
    before its partitions move. `patience`: seconds for which a publish waits for its confirmation.
    `span`: how many records of a partition may run and finish behind one that is not finished.
    `create_topics`: whether topics that are missing are made."""

    server = True
    queues = False

    def __init__(
        self,
        *servers: str,
        session: Seconds = 30.0,
        drain: Seconds = 10.0,
        patience: Seconds = 30.0,
        span: int = 10_000,
        create_topics: bool = False,
    ) -> None:
        self.servers, self.create_topics = servers, create_topics
        self.session = duration("session", session, zero=False, place=str(self))
        self.drain = duration("drain", drain, place=str(self))
        self.patience = duration("patience", patience, zero=False, place=str(self))
        self.span = whole("span", span, place=str(self))

    def __repr__(self) -> str:
        return f"Kafka({', '.join(map(repr, self.servers))})"

    def __str__(self) -> str:
        return shown(f"kafka://{','.join(self.servers)}")

    def creating_topics(self) -> "Kafka":
        return Kafka(
            *self.servers,
            session=self.session,
            drain=self.drain,
            patience=self.patience,
            span=self.span,
            create_topics=True,
        )

    def open(self, clock: Clock) -> Transport:
        with _client("kafka"):
            from busline.transports.kafka import KafkaTransport
        url = f"kafka://{','.join(self.servers)}"
        return KafkaTransport(
            url,
            session=self.session,
            drain=self.drain,
            patience=self.patience,
            span=self.span,
            create_topics=self.create_topics,
            clock=clock,
        )


@contextmanager
def _client(extra: str) -> Generator[None]:
    """Raises Invalid where a client is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Invalid(
            wrong(
                f"{extra}://",
                "its client, an extra of busline",
                f"no module '{error.name}'",
                f'Type: pip install "pybusline[{extra}]"',
            )
        ) from error


# --- URLs ------------------------------------------------------------------------------------


def engine(url: str) -> Engine:
    """The engine that a URL names. Raises Invalid for a URL that names none."""
    scheme = url.partition("://")[0]
    if scheme not in READ:
        raise Invalid(
            wrong(
                shown(url),
                FORMS,
                f"'{scheme}://'" if "://" in url else "no scheme",
                "Correct the URL.",
            )
        )
    return READ[scheme](url)


def shown(url: str) -> str:
    """A URL without its secrets."""
    scheme, found, rest = url.partition("://")
    if not found:
        return "the URL"  # a password may be anywhere in it
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _sqlite(url: str) -> Engine:
    location, options = _options(url, sync=str)
    path = location.removeprefix("sqlite://")
    if not path.startswith("/") or len(path) < 2:
        raise Invalid(
            wrong(
                shown(url),
                "sqlite:///relative or sqlite:////absolute",
                "no path",
                "Write three slashes and a path.",
            )
        )
    return Sqlite(unquote(path[1:]), **options)


def _redis(url: str) -> Engine:
    location, options = _options(url, lease=float, namespace=str)
    return Redis(location, **options)


def _kafka(url: str) -> Engine:
    location, options = _options(
        url, session=float, drain=float, patience=float, span=int, create_topics=_yes
    )
    return Kafka(*location.removeprefix("kafka://").split(","), **options)


def _not_yet(url: str) -> Engine:
    scheme = url.partition("://")[0]
    raise Invalid(
        wrong(
            shown(url), NOT_YET[scheme], f"{scheme}://", "An encrypted connection is not there yet."
        )
    )


def _options(url: str, **known: Callable[[str], Any]) -> tuple[str, dict[str, Any]]:
    """A URL without its options, and those, read."""
    location, _, query = url.partition("?")
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        try:
            options[name] = known[name](text)
        except (KeyError, ValueError) as error:
            expected = f"{' or '.join(f'{one}=' for one in known)} after the `?`"
            got = (
                f"{name}={text}"
                if name in known
                else "another option"
                if "@" in query
                else f"{name}="
            )  # it may be a password, or end in one
            raise Invalid(
                wrong(shown(url), expected, got, "Correct it, or leave it out.")
            ) from error
    return location, options


def _yes(text: str) -> bool:
    return {"1": True, "true": True, "0": False, "false": False}[text]


READ: dict[str, Callable[[str], Engine]] = {
    "memory": lambda url: Memory(),
    "sqlite": _sqlite,
    "redis": _redis,
    "unix": _redis,
    "kafka": _kafka,
    **dict.fromkeys(NOT_YET, _not_yet),
}
