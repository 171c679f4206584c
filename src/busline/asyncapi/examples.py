"""An example of a schema: small, and only if its type takes it."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

DEEPEST = 8
TEXTS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT1M",
    "uuid": "0197a5c0-0000-7000-8000-000000000000",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "binary": "",
}


class Unknown(Exception):
    """There is no simple example."""


def example(
    schema: Mapping[str, Any], models: Mapping[str, Any], adapter: TypeAdapter[Any]
) -> Any | None:
    """A value that the type reads; None where no simple one is found."""
    try:
        value = _value(schema, models, 0)
        adapter.validate_json(orjson.dumps(value))
    except (Unknown, ValidationError, RecursionError):
        return None
    return value


def _value(schema: Mapping[str, Any], models: Mapping[str, Any], depth: int) -> Any:
    if depth > DEEPEST:
        raise Unknown
    if ref := schema.get("$ref"):
        return _value(models[ref.rpartition("/")[2]], models, depth + 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if examples := schema.get("examples") or schema.get("enum"):
        return examples[0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _first(choices, models, depth)
    if parts := schema.get("allOf"):
        return _value(parts[0], models, depth + 1)
    return _typed(schema, models, depth)


def _first(choices: list[Mapping[str, Any]], models: Mapping[str, Any], depth: int) -> Any:
    """Of the first choice that has one."""
    for choice in choices:
        try:
            return _value(choice, models, depth + 1)
        except Unknown:
            continue
    raise Unknown


def _typed(schema: Mapping[str, Any], models: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        needed = schema.get("required", ())
        return {
            name: _value(part, models, depth + 1)
            for name, part in schema.get("properties", {}).items()
            if name in needed or depth < 2
        }
    if kind == "array":
        return _array(schema, models, depth)
    if kind == "string":
        return _text(schema)
    if kind in ("integer", "number"):
        return _number(schema)
    return {"boolean": True, "null": None}.get(str(kind), {} if kind is None else None)


def _array(schema: Mapping[str, Any], models: Mapping[str, Any], depth: int) -> list[Any]:
    items = schema.get("items", {})
    if isinstance(items, list):
        return [_value(one, models, depth + 1) for one in items]
    count = max(int(schema.get("minItems", 0)), int(depth < 3))
    return [_value(items, models, depth + 1)] * count


def _text(schema: Mapping[str, Any]) -> str:
    if "pattern" in schema:
        raise Unknown
    text = TEXTS.get(schema.get("format", ""), "text")
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    return text.ljust(least, "x")[:most]


def _number(schema: Mapping[str, Any]) -> int | float:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    value: int | float = least + ("exclusiveMinimum" in schema)
    step: int | float | None = schema.get("multipleOf")
    return value if not step else -(-value // step) * step
