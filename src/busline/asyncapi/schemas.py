"""JSON Schemas of many types at once: models stand once in the components, in the form that AsyncAPI reads."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter

Mode: TypeAlias = Literal["validation", "serialization"]
Schema: TypeAlias = dict[str, Any]
REF = "#/components/schemas/{model}"
VALUES = ("const", "default", "enum", "examples")
UNSAFE = re.compile(r"[^\w.\-]")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schema to be made: `validation` of what is received, `serialization` of what is sent."""

    id: str
    mode: Mode
    adapter: TypeAdapter[Any]


def schemas(wanted: Iterable[Wanted]) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The schema of each, by its id, and the models that they refer to."""
    inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = [(one.id, one.mode, one.adapter) for one in wanted]
    if not inputs:
        return {}, {}
    found, whole = TypeAdapter.json_schemas(inputs, ref_template=REF)
    models = whole.get("$defs", {})
    return {id: readable(schema) for (id, _), schema in found.items()}, {name: readable(model) for name, model in models.items()}


def readable(schema: Any) -> Any:
    """The same in AsyncAPI's form: a discriminator is a name, a tuple's parts are a list of items."""
    if isinstance(schema, list):
        return [readable(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    return dict(_part(name, part) for name, part in schema.items())


def _part(name: str, part: Any) -> tuple[str, Any]:
    if name == "discriminator":
        return name, part["propertyName"]
    if name == "prefixItems":
        return "items", readable(part)
    if name in ("properties", "patternProperties"):  # names of the user's, each with a schema
        return name, {own: readable(one) for own, one in part.items()}
    return name, part if name in VALUES else readable(part)


def safe(name: str) -> str:
    """A name as a key of a document."""
    return UNSAFE.sub("_", name)
