"""One connection to the server.

Closed, or open with at most one question in the air. Anybody may ask, each in turn. Any doubt
closes it, a cancelled question too; nothing but a look is sent twice from here."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError

from busline.transports.redis.errors import translated
from busline.transports.redis.place import ANSWER, SLOWEST, SOON, Place, pack_command

PARTS = {"turn": ("settle", "promote", "hand_out", "keep_time")}  # what a script is made of besides


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
                raise translated(error, self.place, self.prefix) from error

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
