"""JSON of one type, both ways: what goes out comes back equal, or is refused with the path of the field."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import (
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError

from busline.core.errors import Invalid, excerpt, wrong

BODY_LIMIT = 960 * 1024
DEPTH_LIMIT = 64


class Codec:
    """Compiled once per type. `decode` is the validator's own method, bound: it reads the bytes directly."""

    __slots__ = ("_dump", "_load", "adapter", "decode", "name", "nullable", "schema")

    def __init__(self, model: Any, name: str) -> None:
        adapter = self._adapter(model, name)
        self.name, self.adapter = name, adapter
        self.schema: Mapping[str, Any] = adapter.core_schema
        self.decode: Callable[[bytes], Any] = adapter.validator.validate_json
        self._load = adapter.validator.validate_python
        self._dump = adapter.serializer.to_json
        self.nullable = self._admits_none()

    @staticmethod
    def _adapter(model: Any, name: str) -> TypeAdapter[Any]:
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(model)
            adapter.rebuild(raise_errors=True)
            return adapter
        except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
            raise Invalid(wrong(name, "a type that pydantic can validate", excerpt(model), f"pydantic says: {str(error).splitlines()[0]}")) from error

    def _admits_none(self) -> bool:
        try:
            return self._load(None) is None
        except ValidationError:
            return False

    def encode(self, value: object) -> bytes:
        """The value as JSON. Raises Invalid for a value that does not fit the type, holds NaN or an infinity, or
        makes a body over the limit."""
        try:
            fitting = self._load(value)
            body = self._dump(fitting, by_alias=True)
        except (ValidationError, PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            raise Invalid(wrong(self.name, "a value of its type", *_reason(error, value))) from error
        if b"null" in body or b"NaN" in body or b"Infinity" in body:
            self._refuse_not_finite(fitting)
        check(body, self.name)
        return body

    def _refuse_not_finite(self, value: object) -> None:
        for path, number in _not_finite(value, ()):
            place = ".".join(map(str, path)) or self.name
            raise Invalid(wrong(place, "a finite number", str(number), "JSON has no NaN or infinity: send null or text instead.", place=self.name))


def _reason(error: Exception, value: object) -> tuple[str, str]:
    if isinstance(error, ValidationError):
        return explain(error), "Give it what the annotation says."
    return f"{type(value).__name__} ({str(error).splitlines()[-1].strip()[:120]})", "Give it what the annotation says."


def explain(error: ValidationError) -> str:
    """Where a body does not fit and why, without the body: at most three places."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in found[:3]]
    return "; ".join(places) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def check(body: bytes, name: str) -> None:
    """Raises Invalid for a body over the limits, before anybody decodes it."""
    if len(body) > BODY_LIMIT:
        raise Invalid(wrong(name, f"a body of at most {BODY_LIMIT} bytes", f"{len(body)}", "Store it elsewhere and send its address."))
    if body.count(b"[") + body.count(b"{") > DEPTH_LIMIT and depth(body) > DEPTH_LIMIT:
        raise Invalid(wrong(name, f"JSON at most {DEPTH_LIMIT} levels deep", "a deeper one", "Flatten it."))


def depth(body: bytes) -> int:
    """How deep the brackets of a JSON text nest, those inside strings left out."""
    deepest = level = 0
    quoted = escaped = False
    for byte in body:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = byte == 0x5C, byte != 0x22
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest


def _not_finite(value: object, path: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], float]]:
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, (*path, key))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from _not_finite(item, (*path, index))
    elif hasattr(value, "__dict__") or hasattr(value, "__slots__"):
        yield from _not_finite({name: getattr(value, name) for name in _fields(value)}, path)


def _fields(value: object) -> Sequence[str]:
    declared = getattr(type(value), "model_fields", None) or getattr(type(value), "__dataclass_fields__", None) or {}
    return [*declared, *(getattr(value, "__pydantic_extra__", None) or {})]


def one_way_aliases(schema: object) -> Iterator[str]:
    """The fields that a model writes under a name it does not read."""
    if isinstance(schema, Mapping):
        if isinstance(fields := schema.get("fields"), Mapping):
            yield from _one_way(fields, _reads_names(schema))
        for name, part in schema.items():
            if name not in ("metadata", "serialization", "cls"):
                yield from one_way_aliases(part)
    elif isinstance(schema, (list, tuple)):
        for part in schema:
            yield from one_way_aliases(part)


def _one_way(fields: Mapping[str, Any], by_name: bool) -> Iterator[str]:
    for name, field in fields.items():
        if not isinstance(field, Mapping) or field.get("type") == "computed-field":
            continue
        written = field.get("serialization_alias", name)
        read = field.get("validation_alias")
        names = {name} if read is None else {read} if isinstance(read, str) else {path[0] for path in read if len(path) == 1}
        if written not in names and not (by_name and written == name):
            yield name


def _reads_names(schema: Mapping[str, Any]) -> bool:
    config = schema.get("config") or {}
    return bool(config.get("populate_by_name") or config.get("validate_by_name"))
