"""A task's arguments as one JSON object: its keys are the parameters' names."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired

from typing_extensions import TypedDict

from busline.core.codec import Codec
from busline.core.errors import Invalid, wrong
from busline.core.signature import place


class Arguments:
    """Binds a call's arguments as Python would, and encodes them."""

    def __init__(self, function: Callable[..., Any], own: Sequence[inspect.Parameter], types: Mapping[str, Any], name: str) -> None:
        for parameter in own:
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                raise Invalid(wrong(parameter.name, "parameters with names", "a positional-only one", "Take the `/` out.", place=place(function)))
        self._names = [one.name for one in own]
        self._signature = inspect.Signature(list(own))
        self._required = frozenset(one.name for one in own if one.default is inspect.Parameter.empty)
        self.names = frozenset(self._names)
        self.codec = Codec(_as_dict(name, own, types), name)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, defaults left to the function. Raises TypeError as a call would."""
        if not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        bound = dict(zip(self._names, args, strict=False))
        bound.update(kwargs)
        fits = len(bound) == len(args) + len(kwargs) and self._required <= bound.keys() <= self.names
        return bound if fits else dict(self._signature.bind(*args, **kwargs).arguments)


def _as_dict(name: str, own: Sequence[inspect.Parameter], types: Mapping[str, Any]) -> Any:
    fields: dict[str, Any] = {}
    for one in own:
        kind = types.get(one.name, Any)
        fields[one.name] = kind if one.default is inspect.Parameter.empty else NotRequired[kind]
    return TypedDict(name, fields)  # type: ignore[operator]  # pyright: ignore  # the fields are known at run time only
