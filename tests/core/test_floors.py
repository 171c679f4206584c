"""The drawing of the house, compared with what is imported."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "src" / "busline"


def drawn() -> list[list[str]]:
    """The floors of the drawing from the roof down, with the rooms of each."""
    text = (ROOT / "docs" / "design.md").read_text().partition("## The floors")[2]
    block = text.partition("```text\n")[2].partition("```")[0]
    return [re.findall(r"(?<!\S)([a-z]+)(?:/|\.py)(?!\S)", line) for line in block.splitlines()]


def rooms() -> set[str]:
    found = {one.stem for one in HOUSE.iterdir() if one.is_dir() or one.suffix == ".py"}
    return {one for one in found if not one.startswith("__")}


def imports() -> Iterator[tuple[str, str]]:
    """Which room imports from which, wherever the import stands."""
    for path in HOUSE.rglob("*.py"):
        room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("busline."):
                yield room, (node.module or "").split(".")[1]


def test_every_room_is_drawn_and_imports_only_from_below() -> None:
    floors = drawn()
    floor_of = {room: n for n, floor in enumerate(floors) for room in floor}
    assert set(floor_of) == rooms()
    up = {
        (room, other)
        for room, other in imports()
        if room != other and not room.startswith("__") and floor_of[room] >= floor_of[other]
    }
    assert up == set()


def test_the_linter_holds_the_same_floors() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = settings["contracts"][0]["layers"]
    held = [sorted(one.replace(" ", "").split("|")) for one in layers if one != "__main__"]
    assert held == [sorted(floor) for floor in drawn()]
