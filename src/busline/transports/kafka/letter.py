"""A dead letter as it is written and read.

Key: `topic/partition@offset`. Value and headers: those of the record that died; then, as `busline-`
headers, the reason and what else is needed to show it and to run it again. A record that is too
large for that, even compressed, leaves a letter without them: it says so, and the record is read
from its own topic as long as it is kept there."""

import re
from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Any

from aiokafka import TopicPartition

from busline.core.address import DEAD, dead_topic
from busline.core.causes import details, told
from busline.core.errors import Invalid, cut, wrong
from busline.core.message import DeadLetter, Delivery, Headers
from busline.core.outcome import Rejected
from busline.core.position import number_of, offset_of, topic_of
from busline.core.served import Served
from busline.transports.kafka.shelf import Slot
from busline.transports.kafka.wire import Record, message, size_of

LARGE = 1_000_000  # bytes of a letter, from which on it is compressed
HUGE = 16 * 1024 * 1024  # and from which on that would hold up everything else
MARK = "busline-"
OF_BODY = (f"{MARK}tombstone", f"{MARK}elsewhere", f"{MARK}key")
LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def topic_for(group: str, topic: str) -> str:
    """Where its letters stand. Raises Invalid where that is no name that Kafka takes."""
    name = dead_topic(topic, group)
    if not LEGAL.fullmatch(name):
        remedy = (
            "Use letters, digits, '.', '_' and '-': the dead letters' topic is named after both."
        )
        raise Invalid(wrong(group, "a group whose name fits into a topic's", f"{name!r}", remedy))
    return name


def may_hold(name: str, served: Container[Served]) -> bool:
    """Whether a topic of letters may be one of these; both a topic's name and a group's may have
    dots."""
    words = name.removesuffix(DEAD).split(".")
    return any(
        Served(".".join(words[:n]), ".".join(words[n:])) in served for n in range(1, len(words))
    )


def id_of(group: str, position: str) -> str:
    """A letter's id: `group/topic/partition@offset`."""
    return f"{group}/{position}"


def key_of(id: str) -> bytes:
    """The key of a letter."""
    return id.partition("/")[2].encode("utf-8", "surrogateescape")


def place_of(id: str) -> tuple[str, bytes] | None:
    """The topic and the key of a letter; None for what is no letter's id."""
    group, _, position = id.partition("/")
    topic, slash, _ = position.partition("/")
    return (dead_topic(topic, group), position.encode()) if slash else None


def forms(
    group: str, delivery: Delivery, outcome: Rejected, now: float
) -> Iterator[tuple[Record, bool]]:
    """A letter as it may be written, the best first, each with whether it is compressed."""
    whole = letter(group, delivery, outcome, now)
    size = size_of(whole)
    if size <= LARGE:
        yield whole, False
    if size <= HUGE:
        yield whole, True
    yield reference(whole, size), False


def reference(letter: Record, size: int) -> Record:
    """The same, without what the record itself holds."""
    at, key, _, headers = letter
    own = [
        (name, value) for name, value in headers if name.startswith(MARK) and name != f"{MARK}key"
    ]
    return at, key, b"", [*own, (f"{MARK}elsewhere", str(size).encode())]


def letter(group: str, delivery: Delivery, outcome: Rejected, now: float) -> Record:
    died = delivery.message
    error = told(outcome.error)
    kept = error.details()
    notes = {
        "id": died.id, "group": group, "position": delivery.position, "handler": delivery.handler,
        "reason": cut(outcome.reason),
        "error-type": error.error_type, "error": error.error, "attempts": delivery.attempt,
        "died-at": now, "at": died.at,
        "tombstone": 1 if died.body is None else None,
        "details": None if kept is None else kept.decode(),
    }  # fmt: skip
    own: Headers = tuple(
        (MARK + name, str(value).encode("utf-8", "surrogateescape"))
        for name, value in notes.items()
        if value is not None
    )
    if died.key is not None:
        own = (*own, (f"{MARK}key", died.key))
    theirs = (
        (name.encode("utf-8", "backslashreplace").decode(), value) for name, value in died.headers
    )
    return int(now * 1000), (delivery.position or "").encode(), died.body or b"", [*theirs, *own]


def notes_of(record: Any) -> dict[str, bytes | None] | None:
    """What is noted beside a record that died; None for a record that nobody here wrote."""
    notes = {
        name.removeprefix(MARK): value for name, value in record.headers if name.startswith(MARK)
    }
    return notes if {"group", "position", "reason", "attempts", "died-at"} <= notes.keys() else None


def slot_of(record: Any) -> Slot | None:
    notes = notes_of(record)
    if notes is None:
        return None
    group, position, handler, died = (
        _text(notes.get(name)) for name in ("group", "position", "handler", "died-at")
    )
    served = Served(topic_of(position), group)
    return Slot(
        id_of(group, position),
        served,
        handler,
        float(died),
        TopicPartition(record.topic, record.partition),
        record.offset,
    )


def shown_of(record: Any) -> DeadLetter | None:
    notes = notes_of(record)
    if notes is None:
        return None
    text = {name: _text(value) for name, value in notes.items()}
    position = text["position"]
    causes, where = details(notes.get("details"))
    return DeadLetter(
        id=id_of(text["group"], position),
        address=topic_of(position),
        handler=text.get("handler", ""),
        position=position,
        key=notes.get("key"),
        body=None if "tombstone" in notes or "elsewhere" in notes else record.value,
        raw_headers=tuple(one for one in record.headers if not one[0].startswith(MARK)),
        reason=text["reason"],
        error_type=text.get("error-type"),
        error=text.get("error"),
        attempts=int(text["attempts"]),
        died_at=float(text["died-at"]),
        at=float(text.get("at", 0)),
        group=text["group"],
        missing=f"{position} is not kept any more" if "elsewhere" in notes else None,
        causes=causes,
        traceback=where,
    )


def completed(letter: DeadLetter, record: Any) -> DeadLetter:
    """A letter with the key, headers and body of its record."""
    found = message(record, record.key, letter.position or "")
    return replace(letter, key=found.key, body=found.body, raw_headers=found.headers, missing=None)


def mended(record: Any, letter: DeadLetter, body: bytes) -> Record:
    """A letter as it was read, whole, with another body."""
    own = tuple(
        (name, value)
        for name, value in record.headers
        if name.startswith(MARK) and name not in OF_BODY
    )
    key = () if letter.key is None else ((f"{MARK}key", letter.key),)
    return record.timestamp, record.key, body, [*letter.raw_headers, *own, *key]


def origin_of(letter: DeadLetter) -> tuple[TopicPartition, int]:
    """Where its record stands."""
    position = letter.position or ""
    return TopicPartition(letter.address, int(number_of(position))), offset_of(position)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")
