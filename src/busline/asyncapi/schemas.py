"""JSON Schemas of many types at once: models stand once in the components, in the form that
AsyncAPI reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter

from busline.asyncapi.sets import ordered

Mode: TypeAlias = Literal["validation", "serialization"]
Schema: TypeAlias = dict[str, Any]
REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schema to be made: `validation` of what is received, `serialization` of what is sent."""

    id: str
    mode: Mode
    adapter: TypeAdapter[Any]


def schemas(wanted: Iterable[Wanted]) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The schema of each, by its id, and the models that they refer to."""
    inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = [
        (one.id, one.mode, one.adapter) for one in wanted
    ]
    if not inputs:
        return {}, {}
    found, whole = TypeAdapter.json_schemas(inputs, ref_template=REF)
    reader = _Reader(whole.get("$defs", {}))
    return {id: reader.read(schema) for (id, _), schema in found.items()}, {
        name: reader.read(model) for name, model in reader.models.items()
    }


class _Reader:
    """Turns schemas into AsyncAPI's form: a discriminator is a name, a tuple's parts are a list of
    items. Values of sets are sorted."""

    def __init__(self, models: Mapping[str, Schema]) -> None:
        self.models = models

    def read(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self.read(one) for one in schema]
        if not isinstance(schema, Mapping):
            return schema
        return dict(self._part(name, part, schema) for name, part in schema.items())

    def _part(self, name: str, part: Any, schema: Mapping[str, Any]) -> tuple[str, Any]:
        match name:
            case "discriminator":
                return name, part["propertyName"]
            case "prefixItems":
                return "items", self.read(part)
            case "properties" | "patternProperties":  # names of the user's, each with a schema
                return name, {own: self.read(one) for own, one in part.items()}
            case "default" | "const":
                return name, ordered(part, schema, self.models)
            case "examples":
                return name, [ordered(one, schema, self.models) for one in part]
            case "enum":
                return name, part
            case _:
                return name, self.read(part)
