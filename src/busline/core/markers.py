"""How a parameter is marked: as a header, the key or a dependency, beside its type or in its
default."""

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Optional, TypeAlias, get_args, get_origin

from typing_extensions import TypeAliasType

from busline.core.depends import INJECTED, Depends, Header, Key
from busline.core.errors import Invalid, excerpt, wrong
from busline.core.fits import UNIONS

Marker: TypeAlias = Header | Key | Depends


def defaultless(parameter: inspect.Parameter) -> bool:
    """Whether a parameter has no default of the user's, but for a marker."""
    default = parameter.default
    return default is inspect.Parameter.empty or default is INJECTED or _marker(default) is not None


class Asked(NamedTuple):
    """How a parameter is marked, if it is, and what it is besides."""

    marker: Marker | None
    kind: Any


def asked(annotation: Any, default: object, name: str = "", at: str = "") -> Asked:
    """The marker of an annotation or default: beside the type, also inside `| None`. Raises Invalid
    for one elsewhere, and for two."""
    kind, found = _split(annotation)
    if (beside := _marker(default)) is not None:
        found.append(beside)
    if len(found) > 1 or any(_split(one)[1] for one in _inner(kind)):
        remedy = (
            f"Write {name or 'name'}: Annotated[type, Header()], with one marker, around the whole"
            " type."
        )
        raise Invalid(
            wrong(name, "a marker beside the type", excerpt(annotation), remedy, place=at)
        )
    return Asked(found[0] if found else None, kind)


def _split(annotation: Any) -> tuple[Any, list[Marker]]:
    """An annotation without its markers, and these."""
    if isinstance(annotation, TypeAliasType):
        return _split(annotation.__value__)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        kind, found = _split(inner)
        rest = [one for one in marks if _marker(one) is None]
        found += [marker for one in marks if (marker := _marker(one)) is not None]
        return (Annotated[(kind, *rest)] if rest else kind), found
    members = get_args(annotation)
    if get_origin(annotation) in UNIONS and type(None) in members and len(members) == 2:
        (member,) = (one for one in members if one is not type(None))
        kind, found = _split(member)
        return (Optional[kind] if found else annotation), found  # noqa: UP045 - the type is known at run time only
    return annotation, []


def _inner(kind: Any) -> Iterator[Any]:
    """The types within a type, at any depth."""
    for one in get_args(kind):
        yield one
        yield from _inner(one)


def _marker(candidate: object) -> Marker | None:
    if isinstance(candidate, (Header, Key, Depends)):
        return candidate
    if isinstance(candidate, type) and candidate in (Header, Key):
        return candidate()
    if candidate is Depends:
        raise Invalid(
            wrong("Depends", "the function that it depends on", "none", "Write Depends(session).")
        )
    dependency = getattr(candidate, "dependency", None)
    if type(candidate).__name__ == "Depends" and callable(dependency):
        return Depends(dependency)  # FastAPI's, known by its shape
    return None
