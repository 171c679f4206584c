"""A task's arguments as one JSON object: its keys are the parameters' names."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

from busline.core.codec import Codec
from busline.core.errors import Invalid
from busline.core.options import Mistakes


class Arguments:
    """Binds a call's arguments as Python would, and encodes them."""

    def __init__(
        self, own: Sequence[inspect.Parameter], types: Mapping[str, Any], name: str
    ) -> None:
        self._signature = inspect.Signature(list(own))
        self._in_place = [one.name for one in own if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        self._only_in_place = frozenset(
            one.name for one in own if one.kind is inspect.Parameter.POSITIONAL_ONLY
        )
        self._required = frozenset(
            one.name for one in own if one.default is inspect.Parameter.empty
        )
        self.names = frozenset(one.name for one in own)
        try:
            self.codec = Codec(_as_dict(name, own, types), name)
        except Invalid:
            with Mistakes() as mistakes:  # which of them it is
                for one in own:
                    mistakes.of(Codec, types.get(one.name, Any), one.name, reads=True, place=name)
            raise

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, defaults left to the function. Raises TypeError as a call
        would."""
        if not kwargs and len(args) == len(self.names) == len(self._in_place):
            return dict(zip(self._in_place, args, strict=True))
        bound = dict(zip(self._in_place, args, strict=False))
        bound.update(kwargs)
        fits = (
            len(bound) == len(args) + len(kwargs) and self._required <= bound.keys() <= self.names
        )
        if fits and self._only_in_place.isdisjoint(kwargs):
            return bound
        return dict(self._signature.bind(*args, **kwargs).arguments)


def _as_dict(name: str, own: Sequence[inspect.Parameter], types: Mapping[str, Any]) -> Any:
    fields: dict[str, Any] = {}
    for one in own:
        kind = types.get(one.name, Any)
        fields[one.name] = kind if one.default is inspect.Parameter.empty else NotRequired[kind]
    make: Any = TypedDict  # whose fields are known at run time only
    made = make(name, fields)
    # an argument that this version does not have is told, not dropped
    made.__pydantic_config__ = ConfigDict(extra="forbid")
    return made
