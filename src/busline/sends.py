"""How values and calls leave: each made into a message, very many in chunks."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, TypeVar

from busline.core.address import Address
from busline.core.chunks import chunks
from busline.core.codec import JSON
from busline.core.ids import new_id
from busline.core.message import Headers, KeyValue, Message, encode_key, typed
from busline.job import Job
from busline.runtime.bus import Bus
from busline.runtime.sending import handling
from busline.task import Call
from busline.topic import Topic

T = TypeVar("T")
R = TypeVar("R")
ON_THE_WAY = 4  # chunks


def recorder(bus: Bus, topic: Topic[Any], headers: Headers = ()) -> Callable[..., Message]:
    """Makes messages of a topic's values: what is the same for all of them is looked up once.

    What it returns raises Invalid for a value that does not fit.
    """
    encode, key_of, time = topic.codec.encode, topic.key_of, bus.clock.time
    if topic.codec.mime != JSON:
        headers = typed(headers, topic.codec.mime)

    def record(value: Any, key: KeyValue = None) -> Message:
        body = encode(value)
        encoded = encode_key(key_of(value, key))
        if encoded is None:
            topic.check_key(None)
        return Message(new_id(), body, headers, encoded, time())

    return record


async def publish_all(
    values: Iterable[T] | AsyncIterable[T],
    record: Callable[[T], Message],
    send: Callable[[Sequence[Message]], Awaitable[int]],
) -> int:
    """Sends them in their order, a thousand or 4 MiB at a time and some thousands on the way.
    Returns how many."""
    sending, count = deque[asyncio.Future[int]](), 0
    try:
        async for messages in _recorded(values, record):
            sending.append(asyncio.ensure_future(send(messages)))
            if len(sending) == ON_THE_WAY:
                count += await sending.popleft()
        while sending:
            count += await sending.popleft()
    finally:
        await asyncio.gather(*sending, return_exceptions=True)
    return count


async def _recorded(
    values: Iterable[T] | AsyncIterable[T], record: Callable[[T], Message]
) -> AsyncIterator[list[Message]]:
    """Their messages, as many at a time as are sent at once."""
    messages = (
        (record(value) for value in values)
        if isinstance(values, Iterable)
        else (record(value) async for value in values)
    )
    async for chunk in chunks(messages, _size):
        yield chunk


def _size(message: Message) -> int:
    return len(message.body or b"")


async def enqueue_all(calls: Iterable[Call[R]], *, now: bool = False) -> list[Job[R]]:
    """Sends calls, a thousand or 4 MiB at a time, the next made while one is on the way; calls of
    one queue keep their order."""
    jobs: list[Job[R]] = []
    sending: asyncio.Task[list[Job[R]]] | None = None
    try:
        async for chunk in chunks(calls, lambda call: len(call.body)):
            if sending is not None:
                jobs += await sending
            sending = asyncio.create_task(_enqueue(chunk, now))
            await asyncio.sleep(0)  # it is on its way while the next is made
        if sending is not None:
            jobs += await sending
    finally:
        if sending is not None:
            await asyncio.gather(sending, return_exceptions=True)
    return jobs


async def _enqueue(calls: Sequence[Call[R]], now: bool) -> list[Job[R]]:
    stamps = {task: task.stamp() for task in dict.fromkeys([call.task for call in calls])}
    messages = [stamps[call.task](call.body) for call in calls]
    ways = {task: (task.target(), now or task.now()) for task in stamps}
    jobs: dict[int, Job[R]] = {}
    for (address, at_once), indexes in _by_way(calls, ways).items():
        delivery, bus = None if at_once else handling(), calls[0].task.bus()
        there = await bus.send(address, [messages[index] for index in indexes], now=at_once)
        for turn, index in enumerate(indexes):
            id = there.get(turn, messages[index].id)
            created = None if delivery is not None else turn not in there
            jobs[index] = calls[index].task._sent(id, created, delivery)
    return [jobs[index] for index in range(len(calls))]


def _by_way(
    calls: Sequence[Call[Any]], ways: Mapping[Any, tuple[Address, bool]]
) -> Mapping[tuple[Address, bool], Sequence[int]]:
    """Which calls go which way: to an address, at once or with the outcome."""
    if len(ways) == 1:
        return {next(iter(ways.values())): range(len(calls))}
    groups: dict[tuple[Address, bool], list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(ways[call.task], []).append(index)
    return groups
