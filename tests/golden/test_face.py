"""The public face: every name and what it takes. Whoever changes it changes `face.txt` as well."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import busline
import busline.testing

FACE = Path(__file__).with_name("face.txt")


def takes(value: Any) -> str:
    """Its parameters and their defaults; what they are said to be is for the checkers."""
    empty = inspect.Parameter.empty
    try:
        signature = inspect.signature(value)
    except ValueError:  # an error that takes whatever Python's own do
        return "(...)"
    bare = [one.replace(annotation=empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=empty))


def members(owner: type) -> Iterator[str]:
    own = {
        name
        for kind in owner.__mro__
        if kind.__module__.startswith("busline")
        for name in vars(kind)
    }
    for name in sorted(own):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(owner, name)
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        yield f"    {name}{takes(value)}" if inspect.isfunction(value) else f"    {name}"


def face() -> Iterator[str]:
    for module in (busline, busline.testing):
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if isinstance(value, type):
                yield f"{module.__name__}.{name}{takes(value)}"
                yield from members(value)
            else:
                yield f"{module.__name__}.{name}{takes(value) if callable(value) else ''}"


def test_every_name_and_what_it_takes() -> None:
    assert list(face()) == FACE.read_text().splitlines()
