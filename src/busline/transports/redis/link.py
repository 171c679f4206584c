"""One connection to the server, and what its errors mean. Any doubt closes it; nothing is sent
twice from here."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as Disconnected

from busline.core.errors import BuslineError, ConfigError, Unavailable, wrong
from busline.transports.redis.place import ANSWER, SLOWEST, SOON, Place, pack_command

CODE = re.compile(
    r"\b(OOM|MISCONF|NOREPLICAS|LOADING|READONLY|MASTERDOWN|BUSY|TRYAGAIN|CLUSTERDOWN|UNBLOCKED|NOAUTH|WRONGPASS|NOPERM)\b"
)
LAYOUT = re.compile(r"LAYOUT (\S+) (.*)")  # ours, and the one that a script found
FULL = ("OOM", "MISCONF", "NOREPLICAS")
LOGIN = ("NOAUTH", "WRONGPASS")
# in scripts, without the word NOPERM
DENIED = re.compile(r"user executing the script can't|ACL failure in script|no permissions to")
# where in a script: of no use to a reader
PLACE = re.compile(r" (mentioned in the command )?script: .*")
PARTS = {"turn": ("settle", "promote", "hand_out", "keep_time")}  # what a script is made of besides
RIGHTS = (
    "+@read +@write +@blocking +@scripting +@pubsub +@connection +client|setname +time '~{prefix}*'"
    " resetchannels '&{prefix}*'"
)


class Script(NamedTuple):
    """A script as the server knows it."""

    hash: str
    text: str


@cache
def script(name: str) -> Script:
    return joined(*PARTS.get(name, ()), name)


def joined(*names: str, text: str = "") -> Script:
    """One script of several files, behind what all share; `text` ends it."""
    folder = Path(__file__).parent
    text = "".join((folder / f"{name}.lua").read_text() for name in ("shared", *names)) + text
    return Script(sha1(text.encode()).hexdigest(), text)


def code(error: Exception) -> str:
    """The word with which the server says what kind of error it is; scripts have it somewhere in
    their text."""
    given = getattr(error, "status_code", None)
    found = CODE.search(str(error))
    return str(given) if given not in (None, "ERR") else found[1] if found else ""


def is_full(error: Unavailable) -> bool:
    """Whether the server answered that it takes no writes: nothing was done, and asking again at
    once brings nothing."""
    return isinstance(error.__cause__, Exception) and code(error.__cause__) in FULL


def understood(error: Exception, place: Place, prefix: str) -> BuslineError:
    """The same error in busline's words: Unavailable where it may be over soon by itself,
    ConfigError where it is not."""
    said, kind = str(error).partition(". ")[0][:300] or f"none within {ANSWER:g} s", code(error)
    if kind == "NOPERM" or isinstance(error, NoPermissionError) or DENIED.search(said):
        said = PLACE.sub("", said)
        remedy = (
            f"Type at the server: ACL SETUSER {place.user or 'default'}"
            f" {RIGHTS.replace('{prefix}', prefix)}"
        )
        return ConfigError(
            [
                wrong(
                    place,
                    "a login that may use the scripts, keys and channels of this namespace",
                    said,
                    remedy,
                )
            ]
        )
    if told := LAYOUT.match(said):
        remedy = "A newer busline has written these keys: upgrade, or choose another namespace."
        return ConfigError(
            [wrong(f"{prefix}layout", f"layout {told[1]}", f"layout {told[2]}", remedy)]
        )
    if kind in LOGIN or isinstance(error, AuthenticationError):
        return ConfigError(
            [
                wrong(
                    place,
                    "a login that the server accepts",
                    said,
                    "Write redis://user:password@host.",
                )
            ]
        )
    if kind in FULL:
        return Unavailable(
            wrong(
                place,
                "a server that takes writes",
                said,
                "Look at its maxmemory, its disk and its replicas.",
            )
        )
    if kind:
        return Unavailable(
            wrong(
                place,
                "a server that is ready for writes",
                said,
                "Wait until it is, or name the primary.",
            )
        )
    if "DB index" in said or "Invalid Database" in said:
        return ConfigError(
            [
                wrong(
                    place,
                    "a database that the server has",
                    "one that it has not",
                    "Leave it out for 0, or raise `databases` there.",
                )
            ]
        )
    if isinstance(error, ResponseError):
        return ConfigError(
            [
                wrong(
                    place,
                    "Redis 6.2 or newer, with keys as busline wrote them",
                    said,
                    "Look at its version, and at this namespace's keys.",
                )
            ]
        )
    return Unavailable(
        wrong(place, "an answer", said, "Is Redis running there, and reachable from here?")
    )


class Watched:
    """What a connection's parser reads from: says whenever something comes."""

    def __init__(self, stream: asyncio.StreamReader, heard: Callable[[], None]) -> None:
        self._stream, self._heard = stream, heard

    async def read(self, n: int) -> bytes:
        data = await self._stream.read(n)
        self._heard()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Link:
    """Asks one question at a time; opened at the first, and again after any trouble.

    An answer may be long, as long as more of it comes: trouble is a silence.
    """

    def __init__(self, place: Place, prefix: str) -> None:
        self.place, self.prefix = place, prefix
        self._connection = place.connection()
        self._turn = asyncio.Lock()
        self._limit: asyncio.Timeout | None = None
        self._silence = ANSWER

    def __repr__(self) -> str:
        return f"<Link to {self.place}>"

    async def ask(self, *command: Any) -> Any:
        """The answer. Raises Unavailable: whether it was done is unknown."""
        return await self._answer(lambda: self._ask(*command))

    async def read(self, *command: Any) -> Any:
        """The answer to what changes nothing. Raises Unavailable."""
        return await self._again(lambda: self._ask(*command))

    async def run(self, name: str, *arguments: Any) -> Any:
        """Runs a script. Raises Unavailable: whether it was done is unknown."""
        return await self._answer(lambda: self._run(name, *arguments))

    async def look(self, name: str, *arguments: Any) -> Any:
        """Runs a script that changes nothing. Raises Unavailable."""
        return await self._again(lambda: self._run(name, *arguments))

    async def _again(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """A connection that was idle may be dead without a word: after a short silence a new one is
        asked."""

        async def twice() -> Any:
            self._silence = SOON
            try:
                return await ask()
            except (Disconnected, OSError, TimeoutError):
                self._silence = ANSWER
                return await ask()
            finally:
                self._silence = ANSWER

        return await self._answer(twice)

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with self._turn:
            try:
                return await ask()
            except (RedisError, OSError, TimeoutError) as error:
                raise understood(error, self.place, self.prefix) from error

    async def _run(self, name: str, *arguments: Any) -> Any:
        """A script that the server does not know was not run: then it is loaded."""
        known = script(name)
        try:
            return await self._ask("EVALSHA", known.hash, 1, self.prefix, *arguments)
        except NoScriptError:
            return await self._ask("EVAL", known.text, 1, self.prefix, *arguments)

    async def _ask(self, *command: Any) -> Any:
        async with asyncio.timeout(self._silence) as self._limit:
            connection = self._connection
            # the server has closed it meanwhile
            if connection.is_connected and await connection.can_read():
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                await connection.connect()
                parser: Any = connection._parser  # its stream is not declared
                parser._stream = Watched(parser._stream, self._heard)
            packed = pack_command(command)
            self._heard(len(packed) / SLOWEST)
            await connection.send_packed_command(packed, check_health=False)
            return await connection.read_response()

    def _heard(self, sending: float = 0.0) -> None:
        """From now on the silence is measured; what is being sent takes its time before."""
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._silence + sending)

    async def close(self) -> None:
        with suppress(RedisError, OSError):
            await self._connection.disconnect()


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancels a task and waits for it. Once is not enough: a wait inside may swallow what comes
    when it is over."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=0.1)


def pairs(flat: list[Any]) -> Mapping[Any, Any]:
    """What a script tells one after the other, as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
