"""A schema, for people: its fields in a table, its type in words."""

import json
from collections.abc import Mapping
from typing import Any

from busline.asyncapi.html import Html, code, joined, markup, table, tag

LIMITS = {
    "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
    "minLength": "length ≥", "maxLength": "length ≤", "minItems": "items ≥", "maxItems": "items ≤",
    "pattern": "matches",
}  # fmt: skip


def described(schema: Mapping[str, Any]) -> Html:
    """All that there is to say of a schema."""
    about = schema.get("description")
    fields = _fields(schema)
    return markup(
        tag("p", about, class_="about") if about else None,
        tag("p", "Type: ", kind(schema)) if fields is None else fields,
    )


def _fields(schema: Mapping[str, Any]) -> Html | None:
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    rows = [
        [code(name), kind(one), "required" if name in required else _default(one), _notes(one)]
        for name, one in properties.items()
    ]
    return table(["field", "type", "", ""], rows, "fields")


def _default(schema: Any) -> Html:
    return (
        markup("default ", code(json.dumps(schema["default"], ensure_ascii=False)))
        if "default" in schema
        else markup("optional")
    )


def _notes(schema: Any) -> Html:
    if not isinstance(schema, Mapping):
        return markup()
    limits, about = _limits(schema), schema.get("description")
    return markup(
        tag("span", about, class_="about") if about else None,
        " " if about and limits else None,
        joined(", ", limits),
    )


def _limits(schema: Mapping[str, Any]) -> list[Html]:
    return [
        markup(words, " ", code(schema[name])) for name, words in LIMITS.items() if name in schema
    ]


def _within(schema: Any) -> Html:
    """The type of a part in words, with its limits."""
    limits = _limits(schema) if isinstance(schema, Mapping) else []
    return markup(kind(schema), " (", joined(", ", limits), ")") if limits else kind(schema)


def kind(schema: Any) -> Html:
    """The type in words; what has none is shown as it is."""
    if not isinstance(schema, Mapping):
        return markup("anything" if schema is True else "nothing")
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return tag("a", name, href=f"#model-{name}")
    for several, between in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if several in schema:
            return joined(between, [_within(one) for one in schema[several]])
    if "const" in schema:
        return code(json.dumps(schema["const"], ensure_ascii=False))
    if "enum" in schema:
        return joined(" or ", [code(json.dumps(one, ensure_ascii=False)) for one in schema["enum"]])
    return _typed(schema)


def _typed(schema: Mapping[str, Any]) -> Html:
    match schema.get("type"):
        case "array":
            return _array(schema)
        case "object" if "properties" not in schema:
            inner = schema.get("additionalProperties")
            return (
                markup("map of ", _within(inner))
                if isinstance(inner, Mapping)
                else markup("object")
            )
        case str(name):
            form = schema.get("format") or schema.get("contentEncoding")
            return markup(name, f" ({form})" if form else None)
        case list(names):
            return markup(" or ".join(map(str, names)))
        case _:
            rest = {
                name: one
                for name, one in schema.items()
                if name not in ("title", "description", "default", "examples")
            }
            return code(json.dumps(rest, ensure_ascii=False)) if rest else markup("anything")


def _array(schema: Mapping[str, Any]) -> Html:
    items = schema.get("items")
    if isinstance(items, list):
        return markup("[", joined(", ", [_within(one) for one in items]), "]")
    return markup("array of ", _within(items)) if isinstance(items, Mapping) else markup("array")
