"""What travels, one arrival of it, and what is left when it died."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from busline.core.clock import moment
from busline.core.errors import Cause, Invalid, excerpt, wrong
from busline.core.options import kind
from busline.core.position import partition_of, topic_of
from busline.core.served import Served

if TYPE_CHECKING:
    from busline.core.outcome import Effect

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]
KeyValue: TypeAlias = str | bytes | int | Decimal | UUID | date | Enum | None

TIMEOUT, SHUTDOWN, LOST = "timeout", "shutdown", "lost"  # why a worker cancels a function
RESERVED = "busline-"
HEADER_LIMIT = 32 * 1024
CONTENT_TYPE = "content-type"
KEYS = "a text, a number, bytes, or a UUID, date or enum, which are one text each"


class Options(NamedTuple):
    """What one call changes of its task's declaration: the deadline in seconds, the retry policy's
    numbers."""

    timeout: float | None = None
    retry: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, data: Any) -> "Options":
        """Of what came from elsewhere: a deadline that cannot be meant is left out, a policy is
        judged when it is needed."""
        timeout, retry = (
            (data.get("timeout"), data.get("retry")) if isinstance(data, dict) else (None, None)
        )
        meant = (
            isinstance(timeout, (int, float))
            and not isinstance(timeout, bool)
            and 0 < timeout < math.inf
        )
        return cls(timeout if meant else None, retry)


@dataclass(slots=True, eq=False)
class Message:
    """What travels. Its sender may change it until it is sent, nobody after that.

    `body`: the bytes of the user's value, None for a tombstone. `at`, `due`: seconds since 1970.
    `task`: the name of the task that a job is for, empty for a record. `unique`: the lock the job
    holds until it is final. `remember`: seconds for which the engine knows `id` after the job is
    final. `origin`: for a record that comes back as a job (a redriven dead letter), its position in
    its topic."""

    id: str
    body: bytes | None
    headers: Headers = ()
    key: bytes | None = None
    at: float = 0.0
    task: str = ""
    due: float | None = None
    unique: str | None = None
    remember: float = 0.0
    options: Options | None = None
    origin: str | None = None

    @property
    def since(self) -> float:
        """When it was sent, or if its sender delayed it, due."""
        return max(self.at, self.due or 0.0)


class Delivery:
    """One arrival of a message, and what a function may ask about it."""

    __slots__ = (
        "_size",
        "_view",
        "address",
        "attempt",
        "cut",
        "handler",
        "lane",
        "message",
        "position",
        "receipt",
        "sends",
        "span",
    )

    address: str
    """The topic or queue it came from."""
    handler: str
    """The name of the subscriber or task that handles it."""
    attempt: int
    """1 for the first run; runs that were cut off or asked to come later do not count."""
    position: str | None
    """Where a record stands, `topic/partition@offset`; None for a job."""

    def __init__(
        self,
        message: Message,
        address: str,
        attempt: int,
        position: str | None,
        lane: object,
        receipt: Any,
    ) -> None:
        self.message, self.address, self.attempt, self.position = (
            message,
            address,
            attempt,
            position,
        )
        self.lane, self.receipt, self._size = lane, receipt, len(message.body or b"")
        self.handler = ""
        self.sends: list[Effect] | None = (
            None  # what leaves with the outcome; None: closed, sends leave at once
        )
        self.cut: str | None = None  # why the worker cancelled the function, if it did
        self.span: Any = None  # of its latest attempt, where it is traced
        self._view: Mapping[str, str] | None = None

    @property
    def id(self) -> str:
        """The message's id; for a job, the job's."""
        return self.message.id

    @property
    def body(self) -> bytes | None:
        """The bytes as they came; None for a tombstone."""
        return self.message.body

    @property
    def key(self) -> bytes | None:
        return self.message.key

    @property
    def published_at(self) -> datetime:
        return moment(self.message.at)

    @property
    def due_at(self) -> datetime | None:
        """When a delayed job was to start."""
        return None if self.message.due is None else moment(self.message.due)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers as text. Of a repeated name the last one wins; bytes that are no UTF-8 become
        surrogates."""
        if self._view is None:
            self._view = view(self.message.headers)
        return self._view

    def headers_all(self, name: str) -> tuple[bytes | None, ...]:
        """Every value of a header, in order, as bytes."""
        return every(self.message.headers, name)

    @property
    def in_lane(self) -> bool:
        """Whether it is a record in its topic: retries wait there, before the records behind it."""
        return self.position is not None and self.message.origin is None

    @property
    def partition(self) -> str:
        """The part of its topic in which a record waits, `topic/partition`; empty for a job."""
        return partition_of(self.position) if self.position is not None and self.in_lane else ""

    @property
    def cut_off(self) -> bool:
        """Whether its worker cancelled it for reasons of its own: that is no attempt."""
        return self.cut in (SHUTDOWN, LOST)

    def again(self) -> "Delivery":
        """The same arrival, for its next attempt."""
        fresh = Delivery(
            self.message, self.address, self.attempt, self.position, self.lane, self.receipt
        )
        fresh.handler, fresh.span = self.handler, self.span
        return fresh

    def __repr__(self) -> str:
        return (
            f"<Delivery {self.position or self.id} to {self.handler or self.address}, attempt"
            f" {self.attempt}>"
        )


def delivered(job: Message, queue: str, attempt: int, receipt: Any = None) -> Delivery:
    """A job as it comes out of a queue. One that was a record comes from its topic."""
    address = queue if job.origin is None else topic_of(job.origin)
    return Delivery(job, address, attempt, job.origin, None, receipt)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that its handler could not handle, byte for byte as it came, with the reason."""

    id: str
    address: str
    handler: str
    position: str | None
    key: bytes | None
    body: bytes | None
    raw_headers: Headers
    reason: str
    error_type: str | None
    error: str | None
    attempts: int
    died_at: float
    at: float = 0.0
    """When it was published."""
    group: str | None = None
    """The group it died in; None for a job."""
    missing: str | None = None
    """Why its key, headers and body are not there, where they are not."""
    causes: tuple[Cause, ...] = ()
    """What its error came from, and the errors of a group, the nearest first: `error_type` and
    `error` of each."""
    traceback: str | None = None
    """Of its last attempt: the end of it, where it is long."""

    @property
    def served(self) -> Served:
        return Served(self.address, self.group)

    @property
    def headers(self) -> Mapping[str, str]:
        return view(self.raw_headers)

    def headers_all(self, name: str) -> tuple[bytes | None, ...]:
        return every(self.raw_headers, name)


def view(headers: Headers) -> Mapping[str, str]:
    return MappingProxyType(
        {name: (value or b"").decode("utf-8", "surrogateescape") for name, value in headers}
    )


def every(headers: Headers, name: str) -> tuple[bytes | None, ...]:
    return tuple(value for known, value in headers if known == name)


def encode_headers(headers: Mapping[str, str] | None) -> Headers:
    """A user's headers as they travel. Raises Invalid for a name with control characters, a
    reserved one, a value that is no text, or more than 32 KiB in all."""
    if not headers:
        return ()
    kind("headers", headers, Mapping, "a mapping of names to texts")
    encoded = tuple(
        (header_name(name), header_value(name, value)) for name, value in headers.items()
    )
    check_headers(encoded)
    return encoded


def typed(headers: Headers, mime: str) -> Headers:
    """With the body's media type among them, unless it is."""
    return (
        headers
        if any(name == CONTENT_TYPE for name, _ in headers)
        else ((CONTENT_TYPE, mime.encode()), *headers)
    )


def check_headers(headers: Headers) -> None:
    """Raises Invalid for more than 32 KiB in all."""
    size = sum(len(name) + len(value or b"") for name, value in headers)
    if size > HEADER_LIMIT:
        raise Invalid(
            wrong(
                "headers",
                f"at most {HEADER_LIMIT} bytes in all",
                f"{size}",
                "Put large values in the body.",
            )
        )


def header_name(name: str) -> str:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise Invalid(
            wrong(
                "headers",
                "names without control characters",
                repr(name)[:60],
                "Take line breaks and tabs out of the name.",
            )
        )
    if name.startswith(RESERVED):
        raise Invalid(
            wrong(
                name,
                f"a name that does not begin with '{RESERVED}'",
                "a reserved one",
                "Choose another name.",
            )
        )
    return name


def header_value(name: str, value: str) -> bytes:
    if not isinstance(value, str):
        raise Invalid(
            wrong(name, "a header's value as str", type(value).__name__, "Convert it with str().")
        )
    return _encoded(name, value)


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Invalid(
            wrong(
                name,
                "text that UTF-8 can carry",
                excerpt(text),
                "Take the lone surrogates out, or send bytes.",
            )
        ) from error


def encode_key(key: KeyValue) -> bytes | None:
    """A key as it travels: text as UTF-8, anything else as the one text that pydantic writes for
    it. Raises Invalid for what it writes none for."""
    if key is None or isinstance(key, bytes):
        return key
    if isinstance(key, str):
        return _encoded("key", key)
    if type(key) is int:
        return str(key).encode()
    try:
        told = to_jsonable_python(key)
    except (PydanticSerializationError, ValueError) as error:
        raise Invalid(wrong("key", KEYS, type(key).__name__, "Convert it with str().")) from error
    if isinstance(told, (str, int, float)):
        return _encoded("key", told if isinstance(told, str) else to_json(told).decode())
    raise Invalid(wrong("key", KEYS, type(key).__name__, "Convert it with str()."))
