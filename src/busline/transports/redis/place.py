"""Where a Redis server is: a URL, taken apart, and connections to it. Its password is never
shown."""

import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from hiredis import pack_command
from redis import Connection as BlockingConnection
from redis import UnixDomainSocketConnection as BlockingUnixConnection
from redis.asyncio.connection import AbstractConnection, Connection, UnixDomainSocketConnection

from busline.core.errors import Invalid, wrong

__all__ = ["ANSWER", "SLOWEST", "SOON", "Place", "pack_command", "place"]
CONNECT, ANSWER = 2.0, 5.0  # seconds, of silence
SOON = 1.0  # seconds of silence after which a look is asked again
SLOWEST = 128 * 1024  # bytes a second of a link that still counts as one
SHAPE = "redis://[user:password@]host[:port][/database]"


@dataclass(frozen=True, slots=True)
class Place:
    """A server's address. `path`: of a unix socket, instead of host and port."""

    host: str
    port: int
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str | None = None

    def __str__(self) -> str:
        where = (
            f"unix://{self.path}" if self.path is not None else f"redis://{self.host}:{self.port}"
        )
        return f"{where}/{self.database}" if self.database and self.path is None else where

    def connection(self) -> AbstractConnection:
        """A connection for the loop, not yet open. It never sends anything a second time by itself;
        time limits are the caller's, for its own ones can swallow a cancellation."""
        if self.path is not None:
            return UnixDomainSocketConnection(
                path=self.path, socket_timeout=None, **self._settings()
            )
        return Connection(
            host=self.host,
            port=self.port,
            socket_timeout=None,
            socket_keepalive=True,
            **self._settings(),
        )

    def blocking(self) -> BlockingConnection | BlockingUnixConnection:
        """The same for a thread."""
        if self.path is not None:
            return BlockingUnixConnection(path=self.path, socket_timeout=ANSWER, **self._settings())  # type: ignore[abstract]  # `host` is a property there, declared untyped
        return BlockingConnection(
            host=self.host,
            port=self.port,
            socket_timeout=ANSWER,
            socket_keepalive=True,
            **self._settings(),
        )

    def _settings(self) -> dict[str, Any]:
        return {
            "db": self.database, "username": self.user, "password": self.password, "protocol": 2,
            "retry": None,
            "socket_connect_timeout": CONNECT, "health_check_interval": 0, "driver_info": None,
            "client_name": f"busline-{socket.gethostname()}"[:60].replace(" ", "-"),
        }  # fmt: skip


def place(url: str) -> Place:
    """Takes a URL apart. Raises Invalid, without its secrets."""
    scheme, rest = _scheme(url)
    user, password, where = _credentials(rest, f"{scheme}://")
    if scheme == "unix":
        return Place("", 0, 0, user, password, unquote(where.partition("?")[0]))
    parts = urlsplit(f"//{where}")
    try:
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError as error:
        raise Invalid(
            wrong(f"redis://{where}", SHAPE, "a port that is no number", "Correct the URL.")
        ) from error
    return Place(host, port, _database(parts.path.strip("/"), where), user, password)


def _scheme(url: str) -> tuple[str, str]:
    scheme, found, rest = url.partition("://")
    if scheme == "rediss":
        raise Invalid(
            wrong(
                "rediss://",
                "redis:// or unix://",
                "TLS",
                "Not yet: use a tunnel, or a network that you trust.",
            )
        )
    if not found or scheme not in ("redis", "unix"):
        raise Invalid(
            wrong(
                f"{scheme}://" if found else "the URL", SHAPE, "another scheme", "Correct the URL."
            )
        )
    return scheme, rest


def _credentials(rest: str, scheme: str) -> tuple[str | None, str | None, str]:
    """User and password, percent-decoded, and what is behind them."""
    login, found, where = rest.rpartition("@")
    if "@" in login or "#" in login or "#" in where:
        remedy = "Write %40 for @ and %23 for #."
        raise Invalid(
            wrong(
                f"{scheme}...@{where.partition('#')[0]}",
                "a URL without a raw # or @ in its password",
                "one",
                remedy,
            )
        )
    if not found:
        return None, None, where
    user, _, password = login.partition(":")
    return unquote(user) or None, unquote(password) or None, where


def _database(text: str, where: str) -> int:
    if text and not text.isdecimal():
        raise Invalid(
            wrong(
                f"redis://{where}",
                "a database's number after the host",
                repr(text),
                "Leave it out for 0.",
            )
        )
    return int(text or 0)
