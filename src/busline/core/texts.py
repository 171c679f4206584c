"""Headers and keys: one text each, read as the parameter that asks for it says."""

from collections.abc import Callable
from typing import Any, get_args

from pydantic import ValidationError

from busline.core.codec import Codec, explain
from busline.core.errors import Invalid, excerpt, wrong
from busline.core.message import Delivery
from busline.core.two_way import NO_TEXTS


class Text:
    """What a header's or key's text becomes. `kind`: the annotation, and Invalid is raised for one that no text can be.
    `raw`: it is read as bytes."""

    def __init__(self, kind: Any, name: str, place: str) -> None:
        self.name = name
        codec = Codec(kind, name, reads=True)
        schema: Any = codec.adapter.core_schema
        while schema["type"] in ("nullable", "default"):
            schema = schema["schema"]
        if schema["type"] in NO_TEXTS:
            raise Invalid(wrong(name, "a type that one text can be", excerpt(kind), "Read what is larger from the body.", place=place))
        said = {kind, *get_args(kind)} - {type(None)}
        self.optional, self.raw = codec.nullable, bytes in said
        validator = codec.adapter.validator
        self._load: Callable[[Any], object] = validator.validate_python if self.raw else validator.validate_strings
        self.plain = said <= {str, Any} or said == {bytes}

    def read(self, text: str | bytes, delivery: Delivery) -> object:
        """Raises Invalid for a text that is none of it."""
        if self.plain:
            return text
        try:
            return self._load(text)
        except ValueError as error:
            why = explain(error) if isinstance(error, ValidationError) else str(error)
            remedy = "Mend the sender or the annotation, then redrive it."
            raise Invalid(wrong(self.name, f"what '{delivery.handler}' takes", f"{excerpt(text)} ({why})", remedy)) from error

    def missing(self, delivery: Delivery, what: str) -> Invalid:
        remedy = "Send it, or annotate the parameter with `| None`."
        return Invalid(wrong(self.name, what, "none", remedy, place=delivery.handler))


def header(text: Text, fallback: object, needed: bool) -> Callable[[Delivery], object]:
    """`fallback`: where the message has none, unless it is `needed`."""

    def provide(delivery: Delivery) -> object:
        value = delivery.headers.get(text.name)
        if value is None:
            if needed:
                raise text.missing(delivery, "a header of this name")
            return fallback
        return text.read(value.encode("utf-8", "surrogateescape") if text.raw else value, delivery)

    return provide


def key(text: Text, fallback: object, needed: bool) -> Callable[[Delivery], object]:
    """As `header`, of the message's key."""

    def provide(delivery: Delivery) -> object:
        if delivery.key is None:
            if needed:
                raise text.missing(delivery, "a message with a key")
            return fallback
        return text.read(delivery.key if text.raw else delivery.key.decode("utf-8", "surrogateescape"), delivery)

    return provide
