"""A message as a record: the plain body, key and headers, readable by any client.

Headers: `content-type: application/json`, left out where the message has one; `busline-id`; then
the user's."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from busline.core.errors import Invalid, wrong
from busline.core.message import CONTENT_TYPE, HEADER_LIMIT, Message

ID = "busline-id"
JSON = (CONTENT_TYPE, b"application/json")


List: TypeAlias = list[tuple[str, bytes | None]]
# what a producer writes: milliseconds since 1970, key, body, headers
Record: TypeAlias = tuple[int, bytes | None, bytes | None, List]


def written(message: Message) -> Record:
    own = (ID, message.id.encode("utf-8", "surrogateescape"))
    given = message.headers
    headers: List
    if not given:
        headers = [JSON, own]
    elif any(name == CONTENT_TYPE for name, _ in given):
        headers = [own, *given]
    else:
        headers = [JSON, own, *given]
    return int(message.at * 1000), message.key, message.body, headers


def check_sizes(topic: str, parts: Mapping[int, Iterable[Record]], limit: int | None) -> None:
    """Raises Invalid for a record that would not fit a batch of `limit` bytes; None: whatever the
    broker says."""
    if limit is None:
        return
    near = limit - 2 * HEADER_LIMIT  # what is smaller fits, whatever its headers
    for records in parts.values():
        for record in records:
            _, key, body, _ = record
            if len(body or b"") + len(key or b"") > near and (size := size_of(record)) > limit:
                remedy = "Raise the topic's max.message.bytes, or send less. Nothing was sent."
                raise Invalid(
                    wrong(
                        topic,
                        f"a record that the topic takes, of at most {limit} bytes",
                        f"{size}",
                        remedy,
                    )
                )


def size_of(record: Record) -> int:
    """A batch of this record alone, in bytes."""
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 0)
    batch.append(0, *record)
    return int(batch.size())


def message(record: Any, key: bytes | None, position: str) -> Message:
    """A record of any producer; without a `busline-id` its position is its id."""
    headers = record.headers
    if len(headers) > 1 and headers[1][0] == ID and headers[0] == JSON:
        id, rest = _text(headers[1][1]), headers[2:]
    elif headers and headers[0][0] == ID:
        id, rest = _text(headers[0][1]), headers[1:]
    else:
        id, rest = "", headers
    return Message(
        id or position, record.value, tuple(rest) if rest else (), key, record.timestamp / 1000
    )


def _text(value: bytes | None) -> str:
    return value.decode("utf-8", "surrogateescape") if value else ""
