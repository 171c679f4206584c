"""JSON of one type, both ways: what goes out comes back equal, or is refused with the path of the
field."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator
from pydantic_core.core_schema import CoreConfig

from busline.core.errors import Invalid, excerpt, wrong
from busline.core.two_way import Difference, Survey, differences

BODY_LIMIT = 960 * 1024
DEPTH_LIMIT = 64
COMBINATIONS = 64  # of types of a model's fields that are remembered
SURELY_FLAT = 2 * DEPTH_LIMIT  # bytes that cannot hold JSON which is deeper, opened and closed
JSON, TEXT, BYTES = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
BASE64: CoreConfig = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
OPAQUE = (
    "metadata",
    "cls",
    "default",
    "expected",
    "members",
    "function",
)  # parts of a core schema that hold none
MEND = "Change its type, or its validators and serializers, so that it reads what it writes."


class Codec:
    """Compiled once per type. `decode` is the validator's own method, bound: it reads the bytes
    directly.

    `reads`: only that. A type that never comes back as it went out cannot be written, and raises
    Invalid; with `secrets` it can be read, and Invalid is raised where it is written."""

    __slots__ = (
        "_dump",
        "_finite",
        "_load",
        "_models",
        "_only",
        "_parts",
        "_sure",
        "_taken",
        "_trust",
        "adapter",
        "decode",
        "mime",
        "name",
        "nullable",
        "secrets",
    )

    def __init__(self, model: Any, name: str, *, reads: bool = False, place: str = "") -> None:
        adapter = _adapter(model, name, place)
        survey = Survey(adapter.core_schema)
        if survey.problems and not reads:
            raise Invalid("\n".join(_said(one.path, name, *one[1:]) for one in survey.problems))
        self.secrets = [_said(one.path, name, *one[1:]) for one in survey.secrets]
        if survey.binary:
            _in_base64(adapter)
        self.name, self.adapter, self.mime = name, adapter, JSON
        self.decode: Callable[[bytes], Any] = adapter.validator.validate_json
        self._load = adapter.validator.validate_python
        self._sure, self._models = survey.sure, survey.models
        alone = len(survey.models) == 1 and adapter.core_schema["type"] in ("model", "dataclass")
        self._only = survey.models[0] if alone else None  # the type itself, and no model in it
        self._finite = survey.sure and not survey.floats
        # an instance may have been changed since it was validated: where nothing is read back the
        # serializer has to say so
        heard: Any = "error" if survey.sure and survey.models else False
        self._dump = partial(adapter.serializer.to_json, by_alias=True, warnings=heard)
        self._trust = partial(adapter.serializer.to_json, by_alias=True, warnings=False)
        names = _fields_of(self._only) if self._only is not None and survey.flat else ()
        self._parts = attrgetter(*names) if len(names) > 1 and survey.sure else None
        self._taken: set[tuple[type, ...]] = set()
        self.nullable = self._admits_none()

    def _admits_none(self) -> bool:
        try:
            return self._load(None) is None
        except ValidationError:
            return False

    def encode(self, value: object) -> bytes:
        """The value as JSON. Raises Invalid for a value that does not fit the type, would not come
        back equal, holds NaN or an infinity, or makes a body over the limit."""
        if self.secrets:
            raise Invalid(self.secrets[0])
        try:
            fitting = self._load(value)
            types = None if self._parts is None else self._types(fitting)
            known = types is not None and types in self._taken
            body = self._trust(fitting) if known else self._dump(fitting)
        except (
            ValidationError,
            PydanticSerializationError,
            ValueError,
            TypeError,
            RecursionError,
        ) as error:
            raise Invalid(
                wrong(self.name, "a value of its type", *_reason(error, value))
            ) from error
        if not self._finite and (b"null" in body or b"NaN" in body or b"Infinity" in body):
            self._refuse_not_finite(fitting)
        if len(body) > SURELY_FLAT and is_suspect(body):
            self.check(body)
        if not self._sure or not (known or self._parts is None) or self._is_derived(fitting):
            self._read_back(fitting, body)
        if types and not known and len(self._taken) < COMBINATIONS:
            self._taken.add(types)
        return body

    def _types(self, value: Any) -> tuple[type, ...] | None:
        """Of its fields, where they tell all: the serializer is asked once for each combination of
        them whether they fit, which takes it longer than to write, and the first is read back. None
        where one was taken out of it."""
        assert self._parts is not None
        try:
            return tuple(map(type, self._parts(value)))
        except AttributeError:
            return None

    def _is_derived(self, value: object) -> bool:
        """Whether somewhere in it may be a model in its base's place."""
        if self._only is not None:
            return type(value) is not self._only
        return any(map(type.__subclasses__, self._models))

    def _read_back(self, value: object, body: bytes) -> None:
        try:
            come = self.decode(body)
        except ValidationError as error:
            raise Invalid(
                wrong(self.name, "a value that can be read as it is written", explain(error), MEND)
            ) from error
        if type(come) is type(value) and come == value:
            return
        found = next(differences(value, come), None)
        if found is None and type(come) is not type(value):
            found = Difference((), value, come)  # as an enum of texts, which equals its text
        if found is not None:
            sent, come = type(found.sent).__name__, type(found.come).__name__
            got = f"a {sent} that comes back as {'another one' if sent == come else f'a {come}'}"
            raise Invalid(
                _said(found.path, self.name, "a value that comes back as it is sent", got, MEND)
            )

    def _refuse_not_finite(self, value: object) -> None:
        for path, number in _not_finite(value, ()):
            remedy = "JSON has no NaN or infinity: send null or text instead."
            raise Invalid(_said(path, self.name, "a finite number", str(number), remedy))

    def check(self, body: bytes) -> None:
        """Raises Invalid for a body over the limits, before anybody decodes it."""
        check_size(body, self.name)
        if body.count(b"[") + body.count(b"{") > DEPTH_LIMIT and depth(body) > DEPTH_LIMIT:
            raise Invalid(
                wrong(
                    self.name,
                    f"JSON at most {DEPTH_LIMIT} levels deep",
                    "a deeper one",
                    "Flatten it.",
                )
            )


class Raw(Codec):
    """Of `bytes` and `str` as a topic's whole type: the body is the value."""

    __slots__ = ()

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(model, name)
        self.mime = TEXT if self.adapter.core_schema["type"] == "str" else BYTES
        self.decode = self._load

    def encode(self, value: object) -> bytes:
        try:
            fitting = self._load(value)
            body: bytes = fitting.encode() if isinstance(fitting, str) else fitting
        except (ValidationError, ValueError) as error:
            raise Invalid(
                wrong(self.name, "a value of its type", *_reason(error, value))
            ) from error
        self.check(body)
        return body

    def check(self, body: bytes) -> None:
        check_size(body, self.name)


def codec_of(model: Any, name: str, *, reads: bool = False) -> Codec:
    """A topic's."""
    bare = get_args(model)[0] if get_origin(model) is Annotated else model
    return Raw(model, name) if bare in (bytes, str) else Codec(model, name, reads=reads)


def _adapter(model: Any, name: str, place: str) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(model)
        adapter.rebuild(raise_errors=True)
        return adapter
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
        remedy = f"pydantic says: {str(error).splitlines()[0]}"
        raise Invalid(
            wrong(name, "a type that pydantic can validate", excerpt(model), remedy, place=place)
        ) from error


def _in_base64(adapter: TypeAdapter[Any]) -> None:
    """Bytes are base64 in JSON, in models as well. These are compiled anew: what pydantic has
    compiled for each of them reads and writes UTF-8."""
    schema: Any = _with_base64(adapter.core_schema)
    config = CoreConfig(**BASE64)
    adapter.core_schema = schema
    adapter.validator = SchemaValidator(schema, config, _use_prebuilt=False)
    adapter.serializer = SchemaSerializer(schema, config, _use_prebuilt=False)


def _with_base64(schema: Any) -> Any:
    """A copy of a core schema, each of its configs with base64 unless it says what else."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(map(_with_base64, schema))
    if not isinstance(schema, dict):
        return schema
    found = {name: part if name in OPAQUE else _with_base64(part) for name, part in schema.items()}
    if found.get("type") in ("model", "dataclass", "typed-dict"):
        found["config"] = {**BASE64, **(schema.get("config") or {})}
    elif found.get("type") == "bytes":
        found["metadata"] = {
            **schema.get("metadata", {}),
            "pydantic_js_updates": {"format": "base64url"},
        }
    return found


def _said(path: Sequence[object], name: str, expected: str, got: str, remedy: str) -> str:
    """What is wrong at a path within a type of this name, or with all of it."""
    return wrong(
        ".".join(map(str, path)) or name, expected, got, remedy, place=name if path else ""
    )


def _reason(error: Exception, value: object) -> tuple[str, str]:
    if isinstance(error, ValidationError):
        return explain(error), "Give it what the annotation says."
    return (
        f"{type(value).__name__} ({str(error).splitlines()[-1].strip()[:120]})",
        "Give it what the annotation says.",
    )


def explain(error: ValidationError) -> str:
    """Where a body does not fit and why, without the body: at most three places."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in found[:3]]
    return "; ".join(places) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def is_suspect(body: bytes) -> bool:
    """Whether it may be over the limits."""
    return len(body) > BODY_LIMIT or body.count(b"[") + body.count(b"{") > DEPTH_LIMIT


def check_size(body: bytes, name: str) -> None:
    if len(body) > BODY_LIMIT:
        raise Invalid(
            wrong(
                name,
                f"a body of at most {BODY_LIMIT} bytes",
                f"{len(body)}",
                "Store it elsewhere and send its address.",
            )
        )


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


def _not_finite(
    value: object, path: tuple[object, ...]
) -> Iterator[tuple[tuple[object, ...], float]]:
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


def _fields_of(model: type) -> Sequence[str]:
    """The names of what is declared in it."""
    return [
        *(
            getattr(model, "model_fields", None)
            or getattr(model, "__dataclass_fields__", None)
            or ()
        )
    ]


def _fields(value: object) -> Sequence[str]:
    return [*_fields_of(type(value)), *(getattr(value, "__pydantic_extra__", None) or {})]
