"""What comes back as it went out. A type tells of most of its parts that they always do, of some
that they never do; the rest is read back each time, and compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel

Schema: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[object, ...]

PLAIN = frozenset(
    {
        "none",
        "bool",
        "int",
        "float",
        "decimal",
        "str",
        "bytes",
        "date",
        "timedelta",
        "uuid",
        "url",
        "multi-host-url",
    }
)
FLAT = PLAIN | {"datetime", "time", "nullable", "default", "model", "dataclass"}
# whatever else a plain one says is a bound, which not every value keeps
SAID = frozenset({"type", "ref", "metadata"})
TEXTS = (PLAIN - {"none"}) | {
    "datetime",
    "time",
    "literal",
    "enum",
}  # what may be the key of a JSON object
NO_TEXTS = frozenset(
    {
        "none",
        "nullable",
        "list",
        "tuple",
        "set",
        "frozenset",
        "dict",
        "model",
        "dataclass",
        "typed-dict",
    }
)
CONTAINERS = (list, tuple, set, frozenset)
INSIDE = ("schema", "items_schema", "lax_schema", "json_schema")  # where a schema holds another one
HARMLESS = frozenset({
    "title", "extra_fields_behavior", "populate_by_name", "validate_by_name", "validate_by_alias",
    "serialize_by_alias", "from_attributes",
    "loc_by_alias", "ser_json_bytes", "val_json_bytes",
})  # fmt: skip


class Problem(NamedTuple):
    """A part of a type that never comes back equal."""

    path: Path
    expected: str
    got: str
    remedy: str


class Survey:
    """What the core schema of a type tells. `problems`: parts that never come back equal;
    `secrets`: those of them that are read well, when somebody else has written them. `sure`: all
    others always do, as long as nobody derives from `models`. `binary`: there are bytes in it.
    `floats`: there are numbers in it that may be no finite ones. `flat`: the type of each of its
    parts says how that is written."""

    def __init__(self, schema: Schema) -> None:
        self.problems: list[Problem] = []
        self.secrets: list[Problem] = []
        self.sure, self.binary, self.floats, self.flat = True, False, False, True
        self.models: list[type] = []
        self._definitions: dict[str, Schema] = {}
        self._walk(schema, ())

    def _walk(self, schema: Schema, path: Path) -> None:
        kind = schema["type"]
        self.binary = self.binary or kind == "bytes"
        self.floats = self.floats or kind == "float"
        self.flat = self.flat and kind in FLAT
        if "serialization" in schema:
            self._serializer(schema, path)
        elif kind in PLAIN:
            self.sure = self.sure and schema.keys() <= SAID
        elif (visit := VISITS.get(kind)) is not None:
            visit(self, schema, path)
        else:
            self.sure = False
            self._inside(schema, path)

    def _inside(self, schema: Schema, path: Path) -> None:
        for name in INSIDE:
            if isinstance(inside := schema.get(name), Mapping):
                self._walk(inside, path)

    def _never(self, path: Path, expected: str, got: str, remedy: str) -> None:
        self.problems.append(Problem(path, expected, got, remedy))

    def _serializer(self, schema: Schema, path: Path) -> None:
        function = schema["serialization"].get("function")
        if (
            getattr(function, "__module__", "") == "pydantic.types"
            and "secret" in function.__name__
        ):
            remedy = "Send it in another way, or give the field a serializer that writes the value."
            self.secrets.append(
                Problem(
                    path,
                    "a value that can be written",
                    "a secret, which is written as asterisks",
                    remedy,
                )
            )
        self.sure = False

    # --- each kind of schema -----------------------------------------------------------------

    def _items(self, schema: Schema, path: Path) -> None:
        self.sure = self.sure and not _bounded(schema)
        found = schema.get("items_schema", {"type": "any"})
        for one in (found,) if isinstance(found, Mapping) else found:
            self._walk(one, path)

    def _dict(self, schema: Schema, path: Path) -> None:
        keys = schema.get("keys_schema", {"type": "any"})
        if _no_text(keys):
            self._never(
                path,
                "keys that are one text each in JSON",
                f"keys of the kind '{keys['type']}'",
                "Send a list of pairs.",
            )
        self.sure = self.sure and not _bounded(schema) and keys["type"] in TEXTS
        self._walk(keys, path)
        self._walk(schema.get("values_schema", {"type": "any"}), path)

    def _union(self, schema: Schema, path: Path) -> None:
        choices = schema["choices"]
        tagged = isinstance(choices, Mapping)
        self.sure = self.sure and tagged and isinstance(schema["discriminator"], str)
        for one in choices.values() if tagged else choices:
            self._walk(one if isinstance(one, Mapping) else one[0], path)

    def _literal(self, schema: Schema, path: Path) -> None:
        self.sure = self.sure and all(type(one) in (str, int, bool) for one in schema["expected"])

    def _enum(self, schema: Schema, path: Path) -> None:
        self.sure = (
            self.sure
            and "missing" not in schema
            and all(type(one.value) in (str, int) for one in schema["members"])
        )

    def _wrapped(self, schema: Schema, path: Path) -> None:
        self._walk(schema["schema"], path)

    def _definitions_of(self, schema: Schema, path: Path) -> None:
        self._definitions |= {one["ref"]: one for one in schema["definitions"]}
        self._walk(schema["schema"], path)

    def _defined(self, schema: Schema, path: Path) -> None:
        # each is looked at once
        if (found := self._definitions.pop(schema["schema_ref"], None)) is not None:
            self._walk(found, path)

    def _json(self, schema: Schema, path: Path) -> None:
        self._never(
            path,
            "a value that is written as it is read",
            "Json, which is read from text and written as what it holds",
            "Declare what it holds.",
        )

    def _model(self, schema: Schema, path: Path) -> None:
        config = schema.get("config") or {}
        self.models.append(schema["cls"])
        self.sure = (
            self.sure
            and config.keys() <= HARMLESS
            and not (schema.get("post_init") or schema.get("custom_init"))
        )
        inside = schema["schema"]
        if "fields" in inside and "serialization" not in inside:
            self._fields(inside, config, path)
        else:  # a root model, or with a validator or serializer around it
            self._walk(inside, path)

    def _bare_fields(self, schema: Schema, path: Path) -> None:
        """Of a typed dict; or of a model within a validator."""
        self._fields(schema, schema.get("config") or {}, path)

    def _fields(self, schema: Schema, config: Schema, path: Path) -> None:
        found = schema["fields"]
        named: Mapping[str, Schema] = (
            found if isinstance(found, Mapping) else {one["name"]: one for one in found}
        )
        by_name = bool(config.get("populate_by_name") or config.get("validate_by_name"))
        for name, field in named.items():
            self._field((*path, name), field, by_name)
        extra = schema.get("extra_behavior") or config.get("extra_fields_behavior")
        self.sure = self.sure and extra != "allow"  # which may be anything
        for one in schema.get("computed_fields", ()) if extra in ("forbid", "allow") else ():
            at = (*path, one["property_name"])
            self._never(
                at,
                "fields that can be read as they are written",
                f'a computed field where extra="{extra}"',
                'Leave extra="ignore".',
            )

    def _field(self, path: Path, field: Schema, by_name: bool) -> None:
        if field.get("serialization_exclude"):
            self._never(
                path,
                "a field that is written",
                "exclude=True",
                "Take it out of the model, or out of exclude.",
            )
        elif not _reads_what_it_writes(str(path[-1]), field, by_name):
            self._never(
                path,
                "a field that reads the name it is written under",
                "two different aliases",
                "Give it one alias.",
            )
        self.sure = self.sure and not (
            field.get("serialization_exclude_if")
            or field.get("init_only")
            or field.get("init") is False
        )
        self._walk(field["schema"], path)


VISITS = {
    "list": Survey._items, "set": Survey._items, "frozenset": Survey._items, "tuple": Survey._items,
    "dict": Survey._dict,
    "union": Survey._union, "tagged-union": Survey._union, "literal": Survey._literal,
    "enum": Survey._enum,
    "nullable": Survey._wrapped, "default": Survey._wrapped, "definitions": Survey._definitions_of,
    "definition-ref": Survey._defined,
    "json": Survey._json, "model": Survey._model, "dataclass": Survey._model,
    "model-fields": Survey._bare_fields, "dataclass-args": Survey._bare_fields,
    "typed-dict": Survey._bare_fields,
}  # fmt: skip


def _bounded(schema: Schema) -> bool:
    return "min_length" in schema or "max_length" in schema


def _no_text(keys: Schema) -> bool:
    if keys["type"] == "enum":
        return not keys.get("sub_type") and not all(
            isinstance(one.value, str) for one in keys["members"]
        )
    if keys["type"] == "literal":
        return not all(isinstance(one, str) for one in keys["expected"])
    return keys["type"] in NO_TEXTS


def _reads_what_it_writes(name: str, field: Schema, by_name: bool) -> bool:
    written = field.get("serialization_alias", name)
    read = field.get("validation_alias")
    names = (
        {name}
        if read is None
        else {read}
        if isinstance(read, str)
        else {way[0] for way in read if len(way) == 1}
    )
    return written in names or (by_name and written == name)


class Difference(NamedTuple):
    """What was sent somewhere, and what would come."""

    path: Path
    sent: object
    come: object


def differences(sent: Any, come: Any, path: Path = ()) -> Iterator[Difference]:
    """Where they are not equal. Private attributes of models are not compared: they are not
    sent."""
    if isinstance(sent, BaseModel) or is_dataclass(sent) or _bare(sent):
        if type(sent) is not type(come):
            yield Difference(path, sent, come)
            return
        for name in _names(sent):
            yield from differences(
                getattr(sent, name, None), getattr(come, name, None), (*path, name)
            )
    elif isinstance(sent, Mapping) and isinstance(come, Mapping):
        yield from (
            Difference((*path, key), sent.get(key), come.get(key))
            for key in sent.keys() ^ come.keys()
        )
        for key in sent.keys() & come.keys():
            yield from differences(sent[key], come[key], (*path, key))
    elif isinstance(sent, (list, tuple)) and type(sent) is type(come) and len(sent) == len(come):
        for place, one in enumerate(sent):
            yield from differences(one, come[place], (*path, place))
    elif not _equal(sent, come):
        yield Difference(path, sent, come)


def _bare(value: object) -> bool:
    """An object that does not say when it equals another one."""
    return (
        type(value).__eq__ is object.__eq__
        and hasattr(value, "__dict__")
        and not isinstance(value, Enum)
    )


def _names(value: Any) -> Sequence[str]:
    if isinstance(value, BaseModel):
        return [*type(value).model_fields, *(value.__pydantic_extra__ or ())]
    return (
        [one.name for one in fields(value) if one.compare]
        if is_dataclass(value)
        else list(vars(value))
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, CONTAINERS) and type(one) is not type(other):
        return False
    if isinstance(one, datetime) and isinstance(other, datetime) and one.tzinfo and other.tzinfo:
        # == itself is never true for an hour that a zone has twice
        return one.astimezone(UTC) == other.astimezone(UTC)
    return bool(one == other)
