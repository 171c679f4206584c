"""Whether what is declared on one side can be what is declared on the other. What cannot be told
counts as yes."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import TypeAliasType

UNIONS = (Union, UnionType)
WIDER = {int: (float, complex), float: (complex,)}  # what else a number may stand for


def fits(given: Any, wanted: Any) -> bool:
    """Whether each value of one type is one of the other."""
    given, wanted = bare(given), bare(wanted)
    if wanted in (Any, object) or given is Any or given == wanted:
        return True
    if get_origin(given) in UNIONS:
        return all(fits(one, wanted) for one in get_args(given))
    if get_origin(wanted) in UNIONS:
        return any(fits(given, one) for one in get_args(wanted))
    return _one_fits(_class(given), _class(wanted)) and _parts_fit(given, wanted)


def reads(given: Any, wanted: Any) -> bool:
    """Whether pydantic may make one type of the other: also a model of a mapping, one plain value
    of another."""
    given, wanted = bare(given), bare(wanted)
    if get_origin(given) in UNIONS:
        return all(reads(one, wanted) for one in get_args(given))
    if get_origin(wanted) in UNIONS:
        return any(reads(given, one) for one in get_args(wanted))
    one, other = _class(given), _class(wanted)
    if _is_model(other):
        return fits(given, wanted) or (isinstance(one, type) and issubclass(one, Mapping))
    return fits(given, wanted) or not _is_model(one)


def bare(kind: Any) -> Any:
    """A type without what is noted beside it."""
    while True:
        if isinstance(kind, TypeAliasType):
            kind = kind.__value__
        elif get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif hasattr(kind, "__supertype__"):  # a NewType
            kind = kind.__supertype__
        elif isinstance(kind, TypeVar):
            return Any
        else:
            return type(None) if kind is None else kind


def _class(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        kinds = {type(one) for one in get_args(kind)}
        return kinds.pop() if len(kinds) == 1 else Any
    found = get_origin(kind) or kind
    return dict if hasattr(found, "__required_keys__") else found  # a TypedDict


def _one_fits(given: Any, wanted: Any) -> bool:
    if not (isinstance(given, type) and isinstance(wanted, type)) or getattr(
        wanted, "_is_protocol", False
    ):
        return True
    return issubclass(given, wanted) or wanted in WIDER.get(given, ())


def _parts_fit(given: Any, wanted: Any) -> bool:
    ours, theirs = get_args(given), get_args(wanted)
    if (
        Literal in (get_origin(given), get_origin(wanted))
        or len(ours) != len(theirs)
        or Ellipsis in (*ours, *theirs)
    ):
        return True
    return all(map(fits, ours, theirs))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind))
