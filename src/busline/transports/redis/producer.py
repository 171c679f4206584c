"""Sends jobs: one call in the air, whoever comes meanwhile shares the next.

A sending is pending, in the air, or done. A call whose answer did not come goes out again under its
number, for ten seconds: the server does each number once. Anybody may send; `_send_all` runs once
at a time, and the order of what one caller sends is the order in which it is added."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from busline.core.errors import BuslineError, Unavailable
from busline.core.ids import new_id
from busline.core.message import Message
from busline.transports.redis.envelope import pack, text
from busline.transports.redis.errors import is_full
from busline.transports.redis.link import Link, end

PATIENCE = 10.0  # real seconds for which a send is tried
PAUSE = 0.1
TOGETHER = 1024 * 1024  # bytes of one call, unless one caller sends more


@dataclass(slots=True)
class Sending:
    """One caller's messages, or a part of them, packed. `special`: the index of each that asks for
    more than a place in the list."""

    queue: str
    plain: list[bytes] = field(default_factory=list[bytes])
    rich: list[Any] = field(default_factory=list[Any])
    special: list[int] = field(default_factory=list[int])
    there: dict[int, str] = field(default_factory=dict[int, str])
    done: "asyncio.Future[Mapping[int, str]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def size(self) -> int:
        return sum(map(len, self.plain)) + sum(map(len, self.rich))

    def arguments(self) -> Iterator[Any]:
        yield self.queue
        yield len(self.plain)
        yield from self.plain
        yield len(self.special)
        yield from self.rich


def special(message: Message, queue: str) -> tuple[Any, ...]:
    """What a script needs of a message that is more than its envelope: id, due, unique, remember,
    envelope."""
    due = "" if message.due is None else repr(message.due)
    unique = b"" if message.unique is None else text(message.unique)
    return (
        text(message.id),
        due,
        unique,
        repr(message.remember) if message.remember else "",
        pack(message, queue),
    )


def is_plain(message: Message) -> bool:
    return message.due is None and message.unique is None and not message.remember


def prepared(queue: str, messages: Sequence[Message]) -> list[Sending]:
    """What one caller sends, in as many parts as commands should hold. Raises Invalid for what
    cannot be written."""
    sendings, seen, size = [Sending(queue)], set[str](), 0
    ordinary = not any(not is_plain(one) for one in messages)
    for index, message in enumerate(messages):
        if message.id in seen:
            sendings[-1].there[index] = message.id
            continue
        seen.add(message.id)
        size += len(message.body or b"")
        if size > TOGETHER and (sendings[-1].plain or sendings[-1].rich):
            sendings.append(Sending(queue))
            size = len(message.body or b"")
        if ordinary:
            sendings[-1].plain.append(pack(message, queue))
        else:  # mixed: one by one, so that the order is kept
            sendings[-1].special.append(index)
            sendings[-1].rich += special(message, queue)
    return sendings


class Producer:
    """Numbered calls: the server does each number once and remembers its answer for ten minutes."""

    def __init__(self, link: Link, told: Callable[[], str]) -> None:
        self.id = new_id()
        self._link, self._told = link, told
        self._number = 0
        self._pending: list[Sending] = []
        self._sending: asyncio.Task[None] | None = None

    async def send(self, queue: str, messages: Sequence[Message]) -> Mapping[int, str]:
        """Returns when the server has them. Raises Unavailable after ten seconds: then nothing is
        known."""
        if not messages:
            return {}
        sendings = prepared(queue, messages)
        self._pending += sendings
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(
                self._send_all(), name="busline redis send"
            )
        there: dict[int, str] = {}
        for one in sendings:
            there |= await asyncio.shield(one.done)
        return there

    async def _send_all(self) -> None:
        while self._pending:
            batch = self._next()
            try:
                there = await self._confirm(batch)
            except BuslineError as error:
                fail(batch, error)
            except BaseException:  # cancelled by the closing: those who wait must hear of it
                fail(batch, Unavailable("the engine was closed before it confirmed"))
                self._sending = None
                raise
            else:
                told(batch, there)
        self._sending = None

    def _next(self) -> list[Sending]:
        """What goes out together: never less than one caller's."""
        batch = [self._pending.pop(0)]
        size = batch[0].size()
        while self._pending and (size := size + self._pending[0].size()) < TOGETHER:
            batch.append(self._pending.pop(0))
        return batch

    async def _confirm(self, batch: Sequence[Sending]) -> list[Any]:
        self._number += 1
        blocks = [one for sending in batch for one in sending.arguments()]
        loop = asyncio.get_running_loop()
        limit = loop.time() + PATIENCE
        while True:
            try:
                found: list[Any] = await self._link.run(
                    "add", self.id, self._number, self._told(), *blocks
                )
                return found
            except Unavailable as error:
                if is_full(error) or loop.time() > limit:
                    raise
                await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        """Whoever still waits hears that nothing is known."""
        if self._sending is not None:
            await end(self._sending)
        fail(self._pending, Unavailable("the engine was closed before it confirmed"))
        self._pending.clear()
        await self._link.close()


def told(batch: Sequence[Sending], there: list[Any]) -> None:
    """Gives each caller its answer. `there`: index among the special ones of all, id, and so on."""
    found = {
        index: id.decode("utf-8", "surrogateescape")
        for index, id in zip(there[::2], there[1::2], strict=True)
    }
    first = 0
    for sending in batch:
        for n, index in enumerate(sending.special, first):
            if n in found:
                sending.there[index] = found[n]
        first += len(sending.special)
        if not sending.done.done():
            sending.done.set_result(sending.there)


def fail(batch: Sequence[Sending], error: BuslineError) -> None:
    for sending in batch:
        if not sending.done.done():
            sending.done.set_exception(error)
            sending.done.exception()  # whoever waited may be gone
