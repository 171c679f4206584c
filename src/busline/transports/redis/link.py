"""One connection to the server, and what its errors mean. Any doubt closes it; nothing is sent twice from here."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, RedisError, ResponseError

from busline.core.errors import BuslineError, ConfigError, Unavailable, wrong
from busline.transports.redis.place import ANSWER, Place, pack_command

CODE = re.compile(r"\b(OOM|MISCONF|NOREPLICAS|LOADING|READONLY|MASTERDOWN|BUSY|TRYAGAIN|CLUSTERDOWN|UNBLOCKED|NOAUTH|WRONGPASS|NOPERM)\b")
FULL = ("OOM", "MISCONF", "NOREPLICAS")
LOGIN = ("NOAUTH", "WRONGPASS")
RIGHTS = "+@read +@write +@blocking +@scripting +@pubsub +@connection +client|setname +time '~{prefix}*' resetchannels '&{prefix}*'"


class Script(NamedTuple):
    """A script as the server knows it."""

    hash: str
    text: str


@cache
def script(name: str) -> Script:
    folder = Path(__file__).parent
    text = (folder / "shared.lua").read_text() + (folder / f"{name}.lua").read_text()
    return Script(sha1(text.encode()).hexdigest(), text)


def code(error: Exception) -> str:
    """The word with which the server says what kind of error it is; scripts have it somewhere in their text."""
    given = getattr(error, "status_code", None)
    found = CODE.search(str(error))
    return str(given) if given not in (None, "ERR") else found[1] if found else ""


def is_full(error: Unavailable) -> bool:
    """Whether the server answered that it takes no writes: nothing was done, and asking again at once brings nothing."""
    return isinstance(error.__cause__, Exception) and code(error.__cause__) in FULL


def understood(error: Exception, place: Place, prefix: str) -> BuslineError:
    """The same error in busline's words: Unavailable where it may be over soon by itself, ConfigError where it is not."""
    said, kind = str(error).partition(". ")[0][:300] or f"none within {ANSWER:g} s", code(error)
    if kind == "NOPERM" or isinstance(error, NoPermissionError):
        remedy = f"Type at the server: ACL SETUSER {place.user or 'default'} {RIGHTS.replace('{prefix}', prefix)}"
        return ConfigError([wrong(place, "a login that may use the scripts, keys and channels of this namespace", said, remedy)])
    if kind in LOGIN or isinstance(error, AuthenticationError):
        return ConfigError([wrong(place, "a login that the server accepts", said, "Write redis://user:password@host.")])
    if kind in FULL:
        return Unavailable(wrong(place, "a server that takes writes", said, "Look at its maxmemory, its disk and its replicas."))
    if kind:
        return Unavailable(wrong(place, "a server that is ready for writes", said, "Wait until it is, or name the primary."))
    if "DB index" in said or "Invalid Database" in said:
        return ConfigError([wrong(place, "a database that the server has", "one that it has not", "Leave it out for 0, or raise `databases` there.")])
    if isinstance(error, ResponseError):
        return ConfigError([wrong(place, "Redis 6.2 or newer, with keys as busline wrote them", said, "Look at its version, and at this namespace's keys.")])
    return Unavailable(wrong(place, "an answer", said, "Is Redis running there, and reachable from here?"))


class Link:
    """Asks one question at a time; opened at the first, and again after any trouble."""

    def __init__(self, place: Place, prefix: str) -> None:
        self.place, self.prefix = place, prefix
        self._connection = place.connection()
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Link to {self.place}>"

    async def ask(self, *command: Any) -> Any:
        """The answer. Raises Unavailable: whether it was done is unknown."""
        async with self._turn:
            try:
                return await self._ask(*command)
            except (RedisError, OSError, TimeoutError) as error:
                raise understood(error, self.place, self.prefix) from error

    async def run(self, name: str, *arguments: Any) -> Any:
        """Runs a script. One that the server does not know was not run: then it is loaded."""
        known = script(name)
        async with self._turn:
            try:
                try:
                    return await self._ask("EVALSHA", known.hash, 1, self.prefix, *arguments)
                except NoScriptError:
                    return await self._ask("EVAL", known.text, 1, self.prefix, *arguments)
            except (RedisError, OSError, TimeoutError) as error:
                raise understood(error, self.place, self.prefix) from error

    async def _ask(self, *command: Any) -> Any:
        async with asyncio.timeout(ANSWER):
            connection = self._connection
            if connection.is_connected and await connection.can_read():  # the server has closed it meanwhile
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                await connection.connect()
            await connection.send_packed_command(pack_command(command), check_health=False)
            return await connection.read_response()

    async def close(self) -> None:
        with suppress(RedisError, OSError):
            await self._connection.disconnect()


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancels a task and waits for it. Once is not enough: a wait inside may swallow what comes when it is over."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=0.1)


def pairs(flat: list[Any]) -> Mapping[Any, Any]:
    """What a script tells one after the other, as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
