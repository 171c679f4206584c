"""Rows as people read them."""

from collections.abc import Mapping, Sequence
from typing import Any

EXCERPT = 160


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line with the names, then one for each row, in columns."""
    cells = [
        list(rows[0]),
        *(["-" if value is None else str(value) for value in row.values()] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def short(text: str) -> str:
    """A text in one line; where it is cut, it says so."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 3]}..."


def readable(value: bytes | None) -> str | None:
    """Bytes as text; what is no text is escaped."""
    return None if value is None else value.decode("utf-8", "backslashreplace")
