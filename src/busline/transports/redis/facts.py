"""Facts by key, each with a time to live; whoever waits for one hears of it on the fact's own
channel."""

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError, ResponseError

from busline.core.errors import Unavailable
from busline.transports.redis.envelope import text
from busline.transports.redis.errors import translated
from busline.transports.redis.link import end
from busline.transports.redis.session import Session
from busline.transports.redis.together import Together

log = logging.getLogger("busline")
AGAIN = 0.2  # real seconds before the next try, while the server is away
QUIET = 5.0  # after so long without a word the connection is asked whether it lives


def fact_arguments(key: str, value: bytes, ttl: float) -> tuple[Any, ...]:
    """Key, time to live, value: as the scripts take a fact. Raises ValueError for a time that is no
    number."""
    if math.isnan(ttl):
        raise ValueError("a time to live that is no number")
    return text(key), repr(ttl), value


class RedisStore:
    """The store of one namespace. `until` stands before the value, so that a moved clock is
    believed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ear = Ear(session)
        self._looks: Together[bytes | None] = Together(self._get)

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        if len(keys) == 1:
            return [await self._looks.answer(keys[0])]
        return await asyncio.gather(*map(self._looks.answer, keys))

    async def _get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        moved = self._session.moved()
        found = await self._session.link.look("facts", *map(text, keys))
        return [None if one is None else fresh(one, moved) for one in found]

    async def put(self, key: str, value: bytes, ttl: float, *, absent: bool = False) -> bool:
        return bool(
            await self._session.link.run(
                "put", *fact_arguments(key, value, ttl), self._session.told(), int(absent)
            )
        )

    async def wait(self, key: str, until: float | None) -> bytes | None:
        clock = self._session.clock
        event = asyncio.Event()
        over = until is not None and until <= clock.ticks()
        timer = (
            None
            if until is None or over or until == math.inf
            else clock.after(until - clock.ticks(), event.set)
        )
        if over:
            return (await self.get([key]))[0]
        self._ear.listen(key, event)
        try:
            return await self._look(key, event, until)
        finally:
            if timer is not None:
                timer.cancel()
            self._ear.forget(key, event)

    async def _look(self, key: str, event: asyncio.Event, until: float | None) -> bytes | None:
        """Looks whenever the event says so: first when the channel is heard."""
        while True:
            await event.wait()
            event.clear()
            try:
                if (value := (await self.get([key]))[0]) is not None:
                    return value
            except Unavailable:
                await asyncio.sleep(AGAIN)
                event.set()
            if until is not None and self._session.clock.ticks() >= until:
                return None

    async def close(self) -> None:
        await self._looks.close()
        await self._ear.close()


def fresh(kept: bytes, moved: float | None) -> bytes | None:
    """A kept value. The server forgets it when its time is over; by a clock that is `moved` by
    hand, that is seen here."""
    until, _, value = kept.partition(b" ")
    return value if moved is None or float(until) > moved else None


class Ear:
    """One connection that listens on the channels of all facts that are waited for; open only as
    long as any is."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._events: dict[str, set[asyncio.Event]] = {}
        self._connection = session.place.connection()
        self._task: asyncio.Task[None] | None = None
        self._open = False
        self._refused = False

    def listen(self, key: str, event: asyncio.Event) -> None:
        """From now on the event is set when there may be news."""
        new = key not in self._events
        self._events.setdefault(key, set()).add(event)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="busline redis ear"
            )
        elif self._open:
            self._say("SUBSCRIBE", key) if new else event.set()

    def forget(self, key: str, event: asyncio.Event) -> None:
        self._events[key].discard(event)
        if not self._events[key]:
            del self._events[key]
            if self._open:
                self._say("UNSUBSCRIBE", key)

    def _say(self, command: str, *keys: str) -> None:
        packed = self._connection.pack_command(command, *[self._channel(key) for key in keys])
        # the connection's own sending waits, which one who forgets cannot
        writer = self._connection._writer
        if writer is not None:
            writer.writelines(packed)

    def _channel(self, key: str) -> str:
        return f"{self._session.prefix}fact:{key}"

    async def _run(self) -> None:
        while self._events:
            try:
                await self._hear()
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
                await asyncio.sleep(AGAIN)
            finally:
                self._open = False
                with suppress(RedisError, OSError):
                    await self._connection.disconnect()

    def _failed(self, error: Exception) -> None:
        """A server that is away is told by whoever works with it; a missing right here, once:
        waiters then look every few seconds."""
        if isinstance(error, ResponseError) and not self._refused:
            self._refused = True
            log.warning(
                "results are not heard of at once: %s",
                translated(error, self._session.place, self._session.prefix),
            )

    async def _hear(self) -> None:
        async with asyncio.timeout(QUIET):
            await self._connection.connect()
        self._open = True
        self._say("SUBSCRIBE", *self._events)
        while self._events:
            told = await self._connection.read_response(timeout=QUIET)
            if told is None:
                async with asyncio.timeout(QUIET):
                    await self._connection.send_command("PING")
                    told = await self._connection.read_response()
            self._heard(told)

    def _heard(self, told: Any) -> None:
        """Each word about a channel, its beginning too, makes its waiters look."""
        if told[0] in (b"message", b"subscribe"):
            key = told[1].decode("utf-8", "surrogateescape").removeprefix(self._channel(""))
            for event in self._events.get(key, ()):
                event.set()

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
