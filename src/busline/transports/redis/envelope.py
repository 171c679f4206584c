"""A job as bytes, and a dead letter. Written down in docs/redis.md for other languages.

The first 20 bytes have fixed places, so that scripts need not decode what they move: version,
flags, attempts, deaths, the lengths of id, queue and task, and when it was sent. Then id, queue,
task, the fields that few jobs have, the body."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from busline.core.address import redriven_group
from busline.core.causes import details
from busline.core.errors import Invalid, wrong
from busline.core.message import DeadLetter, Delivery, Message, Options
from busline.core.position import topic_of

VERSION = 1
FIELDS, NO_BODY = 1, 2  # flags; those from 16 on must be understood
HEAD = struct.Struct(">BBHBxHHHd")
PLAIN = bytes((VERSION, 0))  # how an envelope without fields begins: most
FIELD = struct.Struct(">cI")
LENGTH, NUMBER, SHORT = struct.Struct(">I"), struct.Struct(">d"), struct.Struct(">H")


class Packed(NamedTuple):
    """An envelope taken apart: the message, its queue, the failed attempts so far, the id as
    bytes."""

    message: Message
    queue: str
    attempts: int
    id: bytes


def text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def pack(message: Message, queue: str, attempts: int = 0) -> bytes:
    """Raises Invalid for an id or a name that is too long, and for anything else that cannot be
    written."""
    try:
        id, line, task, body = text(message.id), text(queue), text(message.task), message.body
        fields = b"".join(_fields(message)) if _has_fields(message) else b""
        flags = (FIELDS if fields else 0) | (NO_BODY if body is None else 0)
        head = HEAD.pack(VERSION, flags, attempts, 0, len(id), len(line), len(task), message.at)
        rest = LENGTH.pack(len(fields)) + fields if fields else b""
        return b"".join((head, id, line, task, rest, body or b""))
    except struct.error as error:
        raise Invalid(
            wrong(queue, "an id and names of at most 65535 bytes", "a longer one", "Shorten it.")
        ) from error
    except (ValueError, TypeError) as error:  # text that is no UTF-8, options that are no JSON
        raise Invalid(
            wrong(
                queue,
                "a job that can be written",
                f"{type(error).__name__}: {error}"[:200],
                "Correct what it carries.",
            )
        ) from error


def _has_fields(message: Message) -> bool:
    """Whether it has any of those that few jobs have."""
    return bool(
        message.headers
        or message.key is not None
        or message.due is not None
        or message.unique is not None
        or message.remember
        or message.options is not None
        or message.origin is not None
    )


def _fields(message: Message) -> Iterator[bytes]:
    if message.key is not None:
        yield _field(b"k", message.key)
    for header, value in message.headers:
        encoded = text(header)
        tag = b"n" if value is None else b"h"
        yield _field(tag, SHORT.pack(len(encoded)) + encoded + (value or b""))
    if message.due is not None:
        yield _field(b"d", NUMBER.pack(message.due))
    if message.unique is not None:
        yield _field(b"u", text(message.unique))
    if message.remember:
        yield _field(b"r", repr(message.remember).encode())
    if message.options is not None:
        yield _field(b"o", orjson.dumps(message.options._asdict()))
    if message.origin is not None:
        yield _field(b"p", text(message.origin))


def _field(tag: bytes, value: bytes) -> bytes:
    return FIELD.pack(tag, len(value)) + value


@lru_cache(maxsize=1024)
def name(raw: bytes) -> str:
    """The name of a queue or task: there are few."""
    return raw.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=1024)
def names(raw: bytes, size: int) -> tuple[str, str]:
    """Queue and task, of which the first has `size` bytes."""
    return name(raw[:size]), name(raw[size:])


def unpack(envelope: bytes) -> Packed:
    """Takes an envelope apart. Raises ValueError for bytes that are none."""
    try:
        version, flags, attempts, _, ids, queues, tasks, at = HEAD.unpack_from(envelope)
    except struct.error as error:
        raise ValueError("not an envelope") from error
    if version != VERSION or flags >= 16:
        raise ValueError("an envelope of another version")
    queue_at = 20 + ids
    task_at = queue_at + queues
    body_at = task_at + tasks
    id = envelope[20:queue_at]
    queue = name(envelope[queue_at:task_at])
    message = Message(
        id.decode("utf-8", "surrogateescape"), None, (), None, at, name(envelope[task_at:body_at])
    )
    if flags & FIELDS:
        body_at = _read_fields(message, envelope, body_at)
    if not flags & NO_BODY:
        message.body = envelope[body_at:]
    return Packed(message, queue, attempts, id)


def raw_names(envelope: bytes) -> tuple[bytes, str]:
    """The id and the queue of bytes whose first 20 are those of an envelope."""
    ids, queues = HEAD.unpack_from(envelope)[4:6]
    return envelope[20 : 20 + ids], name(envelope[20 + ids : 20 + ids + queues])


def _read_fields(message: Message, envelope: bytes, at: int) -> int:
    end: int = at + 4 + LENGTH.unpack_from(envelope, at)[0]
    at += 4
    headers: list[tuple[str, bytes | None]] = []
    while at < end:
        tag, size = FIELD.unpack_from(envelope, at)
        value = envelope[at + 5 : at + 5 + size]
        at += 5 + size
        if tag in (b"h", b"n"):
            headers.append(_header(tag, value))
        else:
            _read_field(message, tag, value)
    message.headers = tuple(headers)
    return end


def _header(tag: bytes, value: bytes) -> tuple[str, bytes | None]:
    size = SHORT.unpack_from(value)[0] + 2
    return value[2:size].decode("utf-8", "surrogateescape"), None if tag == b"n" else value[size:]


def _read_field(message: Message, tag: bytes, value: bytes) -> None:
    if tag == b"k":
        message.key = value
    elif tag == b"d":
        message.due = NUMBER.unpack(value)[0]
    elif tag == b"u":
        message.unique = value.decode("utf-8", "surrogateescape")
    elif tag == b"r":
        message.remember = float(value)
    elif tag == b"o":
        message.options = Options.read(orjson.loads(value))
    elif tag == b"p":
        message.origin = value.decode("utf-8", "surrogateescape")


class Letter(NamedTuple):
    """A dead letter as it is kept: what is shown of it, and the message that is sent again, with
    its queue.

    `raw`: bytes that were no envelope; they go back as they came.
    """

    shown: DeadLetter
    message: Message
    queue: str
    raw: bytes | None


def pack_letter(delivery: Delivery, queue: str, told: dict[str, Any]) -> bytes:
    """`told`: reason, error_type, error, details, died_at. The rest is in the delivery."""
    head = orjson.dumps({"handler": clean(delivery.handler), **told})
    return (
        LENGTH.pack(len(head)) + head + pack(delivery.message, queue, min(delivery.attempt, 65535))
    )


def unpack_letter(id: str, data: bytes) -> Letter:
    size = LENGTH.unpack_from(data)[0]
    told: dict[str, Any] = orjson.loads(data[4 : 4 + size])
    raw = data[4 + size :] if told.get("raw") else None
    packed = (
        unpack(data[4 + size :]) if raw is None else Packed(Message(id, raw), told["queue"], 0, b"")
    )
    message = packed.message
    address = packed.queue if message.origin is None else topic_of(message.origin)
    causes, where = details(told.get("details"))
    shown = DeadLetter(
        id=id,
        address=address,
        handler=told["handler"],
        position=message.origin,
        key=message.key,
        body=message.body,
        raw_headers=message.headers,
        reason=told["reason"],
        error_type=told.get("error_type"),
        error=told.get("error"),
        attempts=packed.attempts,
        died_at=told["died_at"],
        at=message.at,
        group=redriven_group(packed.queue),
        causes=causes,
        traceback=where,
    )
    return Letter(shown, message, packed.queue, raw)


def mended(id: str, data: bytes, body: bytes) -> bytes:
    """A letter with another body. One of bytes that were no envelope has these for its body."""
    start = 4 + int(LENGTH.unpack_from(data)[0])
    letter = unpack_letter(id, data)
    if letter.raw is not None:
        return data[:start] + body
    return data[:start] + pack(
        replace(letter.message, body=body), letter.queue, letter.shown.attempts
    )


def clean(value: str) -> str:
    """Text as JSON takes it: lone surrogates escaped."""
    return value.encode("utf-8", "backslashreplace").decode()
