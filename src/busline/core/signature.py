"""A function's parameters, read once: its body or arguments, and what is injected."""

import inspect
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, get_type_hints

from busline.core import texts
from busline.core.depends import INJECTED, Depends, Header, Key, Node, Provide, itself
from busline.core.errors import Invalid, excerpt, wrong
from busline.core.function import bound, innermost
from busline.core.markers import Asked, asked, defaultless
from busline.core.message import Delivery
from busline.core.options import Mistakes

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
Given = Mapping[type, object]
"""Values injected by their type alone, such as the App."""


@dataclass(slots=True)
class Injected:
    """The parameters that busline fills in: at once, or by opening a dependency."""

    provided: dict[str, Provide] = field(default_factory=dict)
    needed: dict[str, Node] = field(default_factory=dict)


def place(function: Callable[..., Any]) -> str:
    """Where a function stands, for an error text: `module.name`."""
    inner = innermost(function)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', type(inner).__module__)}.{name}"


def check_function(function: Any, at: str) -> None:
    """Raises Invalid for what cannot be called, and for a method in the body of its class, which
    has no object yet."""
    if not callable(function):
        raise Invalid(
            wrong(
                "function",
                "a function",
                excerpt(function),
                "Write options by name, as in name=.",
                place=at,
            )
        )
    owner, _, name = getattr(function, "__qualname__", "").rpartition(".")
    if (
        owner
        and not owner.endswith("<locals>")
        and inspect.isfunction(function)
        and [*inspect.signature(function).parameters][:1] in (["self"], ["cls"])
    ):
        remedy = "Put it at the top of the module, or declare the bound method of an object."
        raise Invalid(
            wrong(
                name,
                "a function",
                f"a method of '{owner}', which nobody has an object for",
                remedy,
                place=at,
            )
        )


def local_names(depth: int) -> Mapping[str, Any]:
    """The names around a declaration, if it stands in a function: annotations that are text may
    mean them."""
    frame: FrameType | None = sys._getframe(depth)
    if frame is None or frame.f_locals is frame.f_globals:
        return {}
    return dict(frame.f_locals)


def declared_late(function: Callable[..., Any]) -> bool:
    """Whether a function inside a function is declared while no module is imported: only this
    process has it."""
    if "<locals>" not in getattr(innermost(function), "__qualname__", ""):
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        around = frame.f_globals
        if (
            frame.f_code.co_name == "<module>"
            and around.get("__name__") != "__main__"
            and around.get("__spec__") is not None
        ):
            return False
        frame = frame.f_back
    return True


def hints(function: Callable[..., Any], around: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations, resolved. Raises Invalid naming the first that cannot be."""
    inner = innermost(function)
    if inspect.isclass(inner):
        inner = inner.__init__
    names = (
        {**around, **inspect.getclosurevars(inner).nonlocals}
        if inspect.isfunction(inner)
        else dict(around)
    )
    try:
        return get_type_hints(inner, localns=names or None, include_extras=True)
    except NameError as error:
        text = _text_of(inner, error.name)
        remedy = (
            f"Import '{error.name}' at run time (not only under TYPE_CHECKING), in the module of"
            " the function."
        )
        raise Invalid(
            wrong(
                text[0],
                "an annotation that can be resolved",
                f"'{text[1]}'",
                remedy,
                place=place(function),
            )
        ) from error


def _text_of(function: Callable[..., Any], name: str | None) -> tuple[str, str]:
    for parameter, annotation in getattr(function, "__annotations__", {}).items():
        if isinstance(annotation, str) and name and name in annotation:
            return parameter, annotation
    return str(name), str(name)


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The function's parameters, without those that a partial has filled; refuses *args and
    **kwargs, which no message can name."""
    filled = bound(function)
    found = [
        one for one in inspect.signature(function).parameters.values() if one.name not in filled
    ]
    for parameter in found:
        if parameter.kind in VARIADIC:
            raise Invalid(
                wrong(
                    parameter.name,
                    "parameters with names",
                    f"'{parameter}'",
                    "Name each of them.",
                    place=place(function),
                )
            )
    return found


class Reader:
    """Reads injected parameters, for one App: `given` is injected by type, `replaced` stands in for
    dependencies."""

    def __init__(
        self,
        given: Given,
        replaced: Mapping[Callable[..., Any], Callable[..., Any]],
        shared: Mapping[Node, object],
    ) -> None:
        self._given = given
        self._replaced = replaced
        self._nodes: dict[tuple[object, bool], Node] = {}
        self._shared = shared

    @property
    def app_nodes(self) -> list[Node]:
        """The dependencies that live as long as the App consumes."""
        return [node for (_, app_scope), node in self._nodes.items() if app_scope]

    def injected(
        self,
        function: Callable[..., Any],
        rest: Sequence[inspect.Parameter],
        types: Mapping[str, Any],
        *,
        app_scope: bool = False,
    ) -> Injected:
        """Where each of these parameters comes from. Raises Invalid for one that nothing
        provides."""
        found = Injected()
        with Mistakes() as mistakes:
            for parameter in rest:
                mistakes.of(
                    self._inject,
                    found,
                    function,
                    parameter,
                    types.get(parameter.name, Any),
                    app_scope,
                )
        return found

    def _inject(
        self,
        found: Injected,
        function: Callable[..., Any],
        parameter: inspect.Parameter,
        annotation: Any,
        app_scope: bool,
    ) -> None:
        wanted = asked(annotation, parameter.default, parameter.name, place(function))
        if isinstance(wanted.marker, Depends):
            self._depend(found, parameter.name, wanted.marker, function, app_scope)
        elif provide := self._provide(wanted, parameter, app_scope, place(function)):
            found.provided[parameter.name] = provide
        elif parameter.default is INJECTED or parameter.default is inspect.Parameter.empty:
            raise Invalid(_nothing_provides(function, parameter, annotation, app_scope))

    def _depend(
        self,
        found: Injected,
        name: str,
        marker: Depends,
        function: Callable[..., Any],
        app_scope: bool,
    ) -> None:
        if app_scope and marker.scope != "app":
            remedy = 'Give it scope="app" as well.'
            raise Invalid(
                wrong(
                    name,
                    "a dependency that lives as long as the App",
                    "one for each delivery",
                    remedy,
                    place=place(function),
                )
            )
        node = self.node(marker)
        if node.app_scope and not app_scope:
            found.provided[name] = lambda _: self._shared[node]
        else:
            found.needed[name] = node

    def node(self, marker: Depends) -> Node:
        """The compiled dependency, one for each function and scope."""
        app_scope = marker.scope == "app"
        function = replaced(self._replaced, marker.dependency)
        key = function if isinstance(function, Hashable) else id(function)
        known = self._nodes.get((key, app_scope))
        if known is None:
            inside = self.injected(
                function, parameters(function), hints(function, {}), app_scope=app_scope
            )
            known = Node(function, inside.provided, inside.needed, app_scope)
            self._nodes[key, app_scope] = known
        return known

    def _provide(
        self, wanted: Asked, parameter: inspect.Parameter, app_scope: bool, at: str
    ) -> Provide | None:
        marker, kind = wanted
        if isinstance(kind, type) and kind in self._given:
            value = self._given[kind]
            return lambda _: value
        if app_scope:
            return None
        if kind is Delivery:
            return itself
        if isinstance(marker, (Header, Key)):
            name = (
                marker.name or parameter.name.replace("_", "-")
                if isinstance(marker, Header)
                else "key"
            )
            text = texts.Text(kind, name, at)
            default = None if defaultless(parameter) else parameter.default
            needed = defaultless(parameter) and not text.optional
            return (texts.header if isinstance(marker, Header) else texts.key)(
                text, default, needed=needed
            )
        return None


def replaced(
    functions: Mapping[Callable[..., Any], Callable[..., Any]], function: Callable[..., Any]
) -> Callable[..., Any]:
    """What stands in for a function, or the function."""
    return functions.get(function, function) if isinstance(function, Hashable) else function


def is_marked(annotation: Any, default: object, given: Given) -> bool:
    """Whether a parameter asks to be injected by its annotation or default."""
    marker, kind = asked(annotation, default)
    return (
        default is INJECTED
        or marker is not None
        or kind is Delivery
        or (isinstance(kind, type) and kind in given)
    )


def _nothing_provides(
    function: Callable[..., Any], parameter: inspect.Parameter, annotation: Any, app_scope: bool
) -> str:
    expected = (
        "Depends(..., scope='app') or App"
        if app_scope
        else "Delivery, App, or Annotated with Header(), Key() or Depends()"
    )
    got = getattr(annotation, "__name__", str(annotation))
    remedy = (
        "A function has one body, its first parameter: merge the two into one model, or say where"
        " the other comes from."
    )
    return wrong(parameter.name, expected, f"'{got}'", remedy, place=place(function))
