"""Markup, with everything escaped that is none."""

from collections.abc import Sequence
from html import escape
from typing import Any


class Html(str):
    """Markup. Any other text is escaped before it becomes part of it."""

    __slots__ = ()


def markup(*parts: object) -> Html:
    """The parts, one after the other; None is nothing."""
    return Html(
        "".join(
            part if isinstance(part, Html) else escape(str(part))
            for part in parts
            if part is not None
        )
    )


def joined(between: str, parts: list[Html]) -> Html:
    return Html(escape(between).join(parts))


def tag(name: str, *inside: object, **attributes: Any) -> Html:
    """An element. `_` in an attribute's name is left out at its end, and stands for `-` else."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{told}>{markup(*inside)}</{name}>")


def code(value: object) -> Html:
    return tag("code", value)


def table(head: list[str], rows: Sequence[Sequence[object]], class_: str = "") -> Html | None:
    """Rows of cells, in a frame that scrolls by itself where the screen is narrow; None where there
    are none."""
    if not rows:
        return None
    top = tag("thead", tag("tr", *(tag("th", one, scope="col") for one in head)))
    body = tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", top, body), class_=f"wide {class_}", tabindex="0")
