"""Middleware around a handler, tied together once."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from busline.core.message import Delivery


class CallNext(Protocol):
    """The rest of the chain."""

    async def __call__(self, delivery: Delivery, /) -> object: ...


Middleware: TypeAlias = Callable[[Delivery, CallNext], Awaitable[object]]
Step: TypeAlias = Callable[[Delivery], Awaitable[object]]


def chain(middleware: Sequence[Middleware], innermost: Step) -> Step:
    """The first middleware becomes the outermost."""
    call: Step = innermost
    for layer in reversed(middleware):
        call = _bind(layer, call)
    return call


def _bind(layer: Middleware, call_next: Step) -> Step:
    return lambda delivery: layer(delivery, call_next)  # type: ignore[arg-type]  # any awaitable will do; the Protocol says coroutine for its readers
