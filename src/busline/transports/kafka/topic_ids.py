"""What tells a topic from another of the same name: the client library's own questions do not bring
it."""

from io import BytesIO
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

NONE = bytes(16)
Answer: Any = Response


class Id(AbstractType[bytes]):  # type: ignore[misc]  # the client library has no types
    """16 bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class MetadataResponse(Answer):  # type: ignore[misc]  # the client library has no types
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle", Int32),
        ("brokers", CompactArray(("node", Int32), ("host", CompactString()), ("port", Int32),
        ("rack", CompactString()), ("tags", TaggedFields))),
        ("cluster", CompactString()),
        ("controller", Int32),
        ("topics", CompactArray(
            ("error", Int16), ("name", CompactString()), ("id", Id), ("internal", Boolean),
            ("partitions", CompactArray(
                ("error", Int16), ("partition", Int32), ("leader", Int32), ("epoch", Int32),
                ("replicas", CompactArray(Int32)),
                ("isr", CompactArray(Int32)), ("offline", CompactArray(Int32)), ("tags",
                TaggedFields),
            )),
            ("operations", Int32), ("tags", TaggedFields),
        )),
        ("operations", Int32),
        ("tags", TaggedFields),
    )  # fmt: skip


class MetadataStruct(RequestStruct):  # type: ignore[misc]  # the client library has no types
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("id", Id), ("name", CompactString()), ("tags", TaggedFields))),
        ("create", Boolean),
        ("cluster_operations", Boolean),
        ("topic_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataRequest(Request[MetadataStruct]):  # type: ignore[misc]  # the client library has no types
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[MetadataStruct]) -> MetadataStruct:
        return request_struct_class(
            [(NONE, name, {}) for name in self._topics], False, False, False, {}
        )


def of(answer: Any) -> dict[str, bytes]:
    """Each topic's id, of those that are there."""
    return {name: id for error, name, id, *_ in answer.topics if not error}
