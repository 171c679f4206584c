"""Sets among the values of a schema: they have no order of their own, and get one."""

from collections.abc import Mapping
from typing import Any

import orjson


def ordered(value: Any, schema: Any, models: Mapping[str, Any]) -> Any:
    """The value as its schema means it, with all sets in it sorted."""
    if not isinstance(schema, Mapping) or not isinstance(value, (list, dict)):
        return value
    if ref := schema.get("$ref"):
        return ordered(value, models.get(str(ref).rpartition("/")[2]), models)
    for several in ("anyOf", "oneOf", "allOf"):
        for choice in schema.get(several, ()):
            value = ordered(value, choice, models)
    return (
        _list(value, schema, models) if isinstance(value, list) else _object(value, schema, models)
    )


def _list(value: list[Any], schema: Mapping[str, Any], models: Mapping[str, Any]) -> list[Any]:
    first, rest = schema.get("prefixItems", ()), schema.get("items")
    parts = [
        ordered(one, first[turn] if turn < len(first) else rest, models)
        for turn, one in enumerate(value)
    ]
    return sorted(parts, key=_text) if schema.get("uniqueItems") else parts


def _object(
    value: dict[str, Any], schema: Mapping[str, Any], models: Mapping[str, Any]
) -> dict[str, Any]:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties")
    return {name: ordered(one, known.get(name, rest), models) for name, one in value.items()}


def _text(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
