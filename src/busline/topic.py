"""Topic, a stream of one type, and Source, what a subscriber listens to."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints, overload

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import TypeForm

from busline.core.address import Address
from busline.core.clock import Seconds
from busline.core.codec import Codec, codec_of
from busline.core.errors import Invalid, excerpt, wrong
from busline.core.fits import UNIONS
from busline.core.message import KeyValue
from busline.core.options import MOST, Mistakes, duration_or_none, kind, word
from busline.core.texts import Text

T = TypeVar("T")
U = TypeVar("U")
NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Source(Generic[T]):
    """Where deliveries come from, and what the function receives of them. `a | b`: both."""

    def __init__(self, parts: "tuple[tuple[Topic[Any], Any], ...]") -> None:
        self.parts = parts  # each topic, and the types wanted of it: None for all

    def __or__(self, other: "Source[U]") -> "Source[T | U]":
        return Source(self.parts + other.parts)

    def __repr__(self) -> str:
        return " | ".join(topic.name for topic, _ in self.parts)


class Topic(Source[T]):
    """A stream of messages of one type.

    `key`: the name of a field, or a function of the value; equal keys keep their order.
    `partitions`: how many, fixed when the engine first sees the topic (16 on the embedded engines
    unless said). `compact`: the last message of a key stands for it; every message needs a key.
    `retention`: seconds for which Kafka keeps a message, where busline makes the topic. The
    embedded engines remove nothing yet."""

    # type[T] first: plain models then type-check in every checker; unions need TypeForm
    @overload
    def __init__(
        self,
        name: str,
        model: type[T],
        *,
        key: str | Callable[[T], KeyValue] | None = None,
        partitions: int | None = None,
        retention: Seconds | None = None,
        compact: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        model: TypeForm[T],
        *,
        key: str | Callable[[T], KeyValue] | None = None,
        partitions: int | None = None,
        retention: Seconds | None = None,
        compact: bool = False,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        model: Any,
        *,
        key: str | Callable[[T], KeyValue] | None = None,
        partitions: int | None = None,
        retention: Seconds | None = None,
        compact: bool = False,
    ) -> None:
        with Mistakes() as mistakes:
            mistakes.of(word, "name", name if name is not None else "")
            mistakes.of(_check_key, key, str(name))
            mistakes.of(kind, "compact", compact, bool, "True or False", place=str(name))
            seconds = mistakes.of(
                duration_or_none, "retention", retention, zero=False, place=str(name)
            )
        self.name, self.model, self.key = name, model, key
        self.partitions, self.compact, self.retention = partitions, compact, seconds
        super().__init__(((self, None),))

    def __repr__(self) -> str:
        return f"<Topic {self.name}>"

    def only(self, model: TypeForm[U]) -> Source[U]:
        """Those of some types of the topic's discriminated union; the others are skipped and
        counted."""
        return Source(((self, model),))

    @property
    def address(self) -> Address:
        return Address("topic", self.name, self.partitions, self.retention, self.compact)

    @cached_property
    def codec(self) -> Codec:
        """How values become bodies. Raises Invalid for a model that cannot be read, or not as it is
        written."""
        return codec_of(self.model, self.name)

    def problems(self) -> Iterator[str]:
        """What is wrong with the declaration."""
        if not NAME.fullmatch(self.name):
            yield wrong(
                self.name,
                "a topic's name of letters, digits, '.', '_' and '-'",
                "another",
                "Name one topic; patterns are not supported.",
            )
        if self.partitions is not None and not (
            isinstance(self.partitions, int) and 1 <= self.partitions <= MOST
        ):
            yield wrong(
                self.name,
                "partitions=1 or more",
                str(self.partitions),
                "Leave it out for the engine's default.",
            )
        mistakes = Mistakes()
        if isinstance(self.key, str):
            mistakes.of(_check_field, self.model, self.key, self.name)
        mistakes.of(lambda: self.codec)
        yield from mistakes.found

    def key_of(self, value: Any, given: KeyValue) -> KeyValue:
        """The key of a value: the one given, else by the declaration."""
        key = self.key
        if given is not None or key is None:
            return given
        if not isinstance(key, str):
            return key(value)
        found: KeyValue = value.get(key) if isinstance(value, Mapping) else getattr(value, key)
        return found

    def check_key(self, key: bytes | None) -> None:
        """Raises Invalid for a message without a key in a compact topic."""
        if self.compact and key is None:
            raise Invalid(
                wrong(
                    self.name,
                    "a key, because the topic is compact",
                    "None",
                    "Pass key=, or declare key= on the Topic.",
                )
            )


def _check_key(key: Any, place: str) -> None:
    if not (key is None or isinstance(key, str) or callable(key)):
        raise Invalid(
            wrong(
                "key",
                "the name of a field, or a function of the value",
                excerpt(key),
                "Correct it.",
                place=place,
            )
        )


def _check_field(model: Any, key: str, place: str) -> None:
    """Of each type that a topic carries: it has the field, and the field is one text."""
    for one in _members(get_args(model)[0] if get_origin(model) is Annotated else model):
        fields = _fields(one)
        if fields is not None and key not in fields:
            raise Invalid(
                wrong(
                    key,
                    f"a field of '{one.__name__}'",
                    "none of that name",
                    "Correct key=.",
                    place=place,
                )
            )
        if fields is not None:
            Text(fields[key], key, place)


def _fields(model: type) -> Mapping[str, Any] | None:
    """The types of its fields; None where it has none."""
    if (fields := getattr(model, "model_fields", None)) is not None:
        return {name: field.annotation for name, field in fields.items()}
    if is_dataclass(model) or hasattr(model, "__required_keys__"):
        return get_type_hints(model)
    return None


def unwanted(topic: Topic[Any], wanted: Any) -> Callable[[bytes], bool]:
    """Knows the bodies of other types of the union, known and unknown ones. Raises Invalid where
    there is no discriminator to tell them by."""
    name, members = _union(topic)
    tags: dict[type, list[object]] = {one: _tags(one, name) for one in members}
    chosen = [tag for one in _members(wanted) for tag in tags.get(one, ())]
    if not name or not chosen or not all(tags.values()):
        remedy = (
            "Give the topic a union with Field(discriminator=...), and only() some of its models."
        )
        raise Invalid(
            wrong(
                "only", "types of a discriminated union", str(wanted)[:60], remedy, place=topic.name
            )
        )
    return _by_tag(_alias(members[0], name), frozenset(chosen))


def _by_tag(alias: str, chosen: frozenset[object]) -> Callable[[bytes], bool]:
    read = Codec(Mapping[str, Any], "tag", reads=True).decode

    def unwanted(body: bytes) -> bool:
        try:
            found = read(body)
        except ValidationError:
            return False  # no JSON object: for the decoder to refuse
        return (
            alias in found and isinstance(found[alias], (str, int)) and found[alias] not in chosen
        )

    return unwanted


def _union(topic: Topic[Any]) -> tuple[str, list[type]]:
    if get_origin(topic.model) is not Annotated:
        return "", []
    union, *marks = get_args(topic.model)
    names = [
        mark.discriminator
        for mark in marks
        if isinstance(mark, FieldInfo) and isinstance(mark.discriminator, str)
    ]
    return (names[0] if names else ""), _members(union)


def _members(union: Any) -> list[type]:
    members = get_args(union) if get_origin(union) in UNIONS else (union,)
    return [one for one in members if isinstance(one, type) and one is not type(None)]


def _tags(model: type, name: str) -> list[object]:
    field = getattr(model, "model_fields", {}).get(name)
    return (
        []
        if field is None
        else [one.value if isinstance(one, Enum) else one for one in get_args(field.annotation)]
    )


def _alias(model: type, name: str) -> str:
    field = getattr(model, "model_fields", {}).get(name)
    alias = None if field is None else field.validation_alias or field.alias
    return alias if isinstance(alias, str) else name
