"""What a user wrote, under its wrappers: what kind of function it is, and how whatever it gives
back is run to its end."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from enum import Enum, auto
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

Function = Callable[..., Any]
UNFINISHED = (
    CoroutineType,
    GeneratorType,
    AsyncGeneratorType,
    Awaitable,
)  # what a call may give back that is yet to be run
# what an awaited function may give back and still mean to be awaited
AWAITED = CoroutineType, asyncio.Future


class Kind(Enum):
    """How a function is to be called. PLAIN and GENERATOR would block the loop: they run in a
    thread."""

    PLAIN = auto()
    GENERATOR = auto()
    COROUTINE = auto()
    ASYNC_GENERATOR = auto()

    @property
    def threaded(self) -> bool:
        return self in (Kind.PLAIN, Kind.GENERATOR)

    @property
    def yields(self) -> bool:
        return self in (Kind.GENERATOR, Kind.ASYNC_GENERATOR)


def kind_of(function: Function) -> Kind:
    """The kind of the outermost layer that shows one: a plain wrapper around a coroutine function
    is one, too."""
    for layer in layers(function):
        if inspect.iscoroutinefunction(layer):
            return Kind.COROUTINE
        if inspect.isasyncgenfunction(layer):
            return Kind.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(layer):
            return Kind.GENERATOR
    return Kind.PLAIN


def layers(function: Function) -> Iterator[Function]:
    """The object itself and what it calls, inwards: through partials, methods, objects with
    `__call__` and wrappers."""
    seen: set[int] = set()
    layer: Any = function
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        layer = _inside(layer)


def _inside(layer: Any) -> Any:
    if isinstance(layer, partial):
        return layer.func
    if inspect.ismethod(layer):
        return layer.__func__
    wrapped = getattr(layer, "__wrapped__", None)
    if wrapped is not None or inspect.isroutine(layer) or inspect.isclass(layer):
        return wrapped
    call = type(layer).__call__ if callable(layer) else None
    return call if inspect.isroutine(call) or hasattr(call, "__wrapped__") else None


def innermost(function: Function) -> Function:
    """What was written with `def`, at the bottom: it has the annotations, the module and the
    name."""
    *_, last = layers(function)
    return last


def bound(function: Function) -> frozenset[str]:
    """The parameters to which a partial has given a value by name: nobody is to be asked for
    them."""
    return frozenset(
        name for layer in layers(function) if isinstance(layer, partial) for name in layer.keywords
    )


def by_name(function: Function) -> Function:
    """The function as one that can be called with all its arguments by name."""
    only_in_place = [
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    if not only_in_place:
        return function

    def call(**values: Any) -> Any:
        first = [values.pop(name) for name in only_in_place if name in values]
        return function(*first, **values)

    return call


async def awaited(value: Any) -> Any:
    """The value behind what is awaitable."""
    if inspect.isawaitable(value):
        value = await value
    while isinstance(value, AWAITED):
        value = await value
    return value


Entered = AbstractAsyncContextManager[Any] | AbstractContextManager[Any]


def opened(value: object, kind: Kind) -> Entered | None:
    """What a generator yields once, as something to enter; None for a value that is not to be
    entered."""
    if isinstance(value, AsyncGeneratorType):
        return asynccontextmanager(lambda: value)()
    if isinstance(value, GeneratorType):
        return contextmanager(lambda: value)()
    if kind.yields and isinstance(value, (AbstractAsyncContextManager, AbstractContextManager)):
        return value  # a generator that its author has made a context manager of
    return None
