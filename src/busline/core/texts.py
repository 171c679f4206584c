"""Headers and keys: one text each, read as the parameter that asks for it says."""

from collections.abc import Callable
from typing import Any, get_args

from pydantic import ValidationError

from busline.core.codec import Codec, explain
from busline.core.errors import Invalid, excerpt, wrong
from busline.core.message import Delivery
from busline.core.two_way import NO_TEXTS

Take = Callable[[Delivery], str | bytes | None]


class Text:
    """What a header's or key's text becomes. `kind`: the annotation, and Invalid is raised for one
    that no text can be. `raw`: it is read as bytes."""

    def __init__(self, kind: Any, name: str, place: str) -> None:
        self.name = name
        codec = Codec(kind, name, reads=True)
        schema: Any = codec.adapter.core_schema
        while schema["type"] in ("nullable", "default"):
            schema = schema["schema"]
        if schema["type"] in NO_TEXTS:
            raise Invalid(
                wrong(
                    name,
                    "a type that one text can be",
                    excerpt(kind),
                    "Read what is larger from the body.",
                    place=place,
                )
            )
        said = {kind, *get_args(kind)} - {type(None)}
        self.optional, self.raw = codec.nullable, bytes in said
        validator = codec.adapter.validator
        self._load: Callable[[Any], object] = (
            validator.validate_python if self.raw else validator.validate_strings
        )
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
            raise Invalid(
                wrong(
                    self.name,
                    f"what '{delivery.handler}' takes",
                    f"{excerpt(text)} ({why})",
                    remedy,
                )
            ) from error

    def provider(
        self, take: Take, what: str, fallback: object, *, needed: bool
    ) -> Callable[[Delivery], object]:
        """Takes the text from a delivery and reads it. `fallback`: where there is none, unless it
        is `needed`."""

        def provide(delivery: Delivery) -> object:
            text = take(delivery)
            if text is not None:
                return self.read(text, delivery)
            if needed:
                remedy = "Send it, or annotate the parameter with `| None`."
                raise Invalid(wrong(self.name, what, "none", remedy, place=delivery.handler))
            return fallback

        return provide


def header(text: Text, fallback: object, *, needed: bool) -> Callable[[Delivery], object]:
    def take(delivery: Delivery) -> str | bytes | None:
        value = delivery.headers.get(text.name)
        return value.encode("utf-8", "surrogateescape") if text.raw and value is not None else value

    return text.provider(take, "a header of this name", fallback, needed=needed)


def key(text: Text, fallback: object, *, needed: bool) -> Callable[[Delivery], object]:
    def take(delivery: Delivery) -> str | bytes | None:
        value = delivery.key
        return value if text.raw or value is None else value.decode("utf-8", "surrogateescape")

    return text.provider(take, "a message with a key", fallback, needed=needed)
