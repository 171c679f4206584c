"""What a function may ask for beside its body: the markers, and dependencies opened in order."""

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from busline.core.errors import Invalid, excerpt, wrong
from busline.core.function import Function, Kind, awaited, kind_of, opened
from busline.core.message import Delivery
from busline.core.options import one_of
from busline.core.threads import in_thread

Provide: TypeAlias = Callable[[Delivery], object]


def itself(delivery: Delivery) -> Delivery:
    """Provides the delivery."""
    return delivery


class _Injected:
    def __repr__(self) -> str:
        return "INJECTED"


INJECTED: Final[Any] = _Injected()
"""The default of a task's parameters that busline fills in."""


@dataclass(frozen=True, slots=True)
class Header:
    """Marks a parameter as a header's text. Without a name: the parameter's, with `_` read as
    `-`."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """Marks a parameter as the message's key, as text, bytes or a number by its annotation."""


@dataclass(frozen=True, slots=True)
class Depends:
    """Marks a parameter as what `dependency` returns or yields. `scope="app"`: opened once, while
    the App consumes."""

    dependency: Callable[..., object]
    scope: Literal["delivery", "app"] = "delivery"

    def __post_init__(self) -> None:
        one_of("scope", self.scope, ("delivery", "app"))
        if not callable(self.dependency):
            if inspect.iscoroutine(self.dependency):
                self.dependency.close()
            remedy = "Write its name, without parentheses: Depends(session)."
            raise Invalid(
                wrong("Depends", "a function or a class", excerpt(self.dependency), remedy)
            )


@dataclass(eq=False, slots=True)
class Node:
    """A dependency, compiled: how it is called, and where each of its parameters comes from."""

    function: Function
    provided: Mapping[str, Provide]
    needed: Mapping[str, "Node"]
    app_scope: bool = False
    kind: Kind = field(init=False)

    def __post_init__(self) -> None:
        self.kind = kind_of(self.function)

    async def open(
        self, delivery: Delivery, values: Mapping["Node", object], stack: AsyncExitStack
    ) -> object:
        """Its value; what it yields is closed by the stack."""
        arguments = {name: provide(delivery) for name, provide in self.provided.items()}
        arguments |= {name: values[node] for name, node in self.needed.items()}
        if self.kind.threaded:
            made = await in_thread(partial(self.function, **arguments))
        else:
            made = self.function(**arguments)
        made = await awaited(made)
        entered = opened(made, self.kind)
        if entered is None:
            return made
        if isinstance(entered, AbstractAsyncContextManager):
            return await stack.enter_async_context(entered)
        return await stack.enter_async_context(_in_thread(entered))


@asynccontextmanager
async def _in_thread(manager: AbstractContextManager[Any]) -> AsyncGenerator[Any]:
    value = await in_thread(manager.__enter__)
    try:
        yield value
    except BaseException as error:  # the manager is to see whatever ends the function
        if not await in_thread(partial(manager.__exit__, type(error), error, error.__traceback__)):
            raise
    else:
        await in_thread(partial(manager.__exit__, None, None, None))


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """Every node once, after those it needs."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        for needed in node.needed.values():
            visit(needed)
        found.setdefault(node)

    for node in nodes:
        visit(node)
    return list(found)
