"""What the worker runs: the user's function with its whole chain, compiled at start."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.to_thread

from busline.core.depends import Node, in_order, itself
from busline.core.message import Delivery
from busline.core.outcome import Outcome
from busline.core.signature import Injected


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """`run` raises only what the policy cannot see: cancellations and exits, for which `fail` is asked.
    `timeout`: seconds for one attempt."""

    name: str
    run: Callable[[Delivery], Awaitable[Outcome]]
    fail: Callable[[Delivery, BaseException], Outcome]
    timeout: float | None = None


Function = Callable[..., Any]
Invoke = Callable[[Delivery, Any], Awaitable[Any]]


class Collect(Protocol):
    """Takes what a function returned or yielded."""

    def __call__(self, delivery: Delivery, value: Any, /) -> None: ...


def in_loop(function: Function, threads: anyio.CapacityLimiter | None) -> Function:
    """The function as one that can be awaited; a plain one runs in a thread, which no deadline can cut."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return function

    async def in_thread(*args: Any, **kwargs: Any) -> Any:
        call = anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=threads)
        running = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait((running,))  # its lane stays closed until the thread returns
            raise

    return in_thread


def invoke(function: Function, injected: Injected, *, spread: bool, collect: Collect | None) -> Invoke:
    """The call of the function for one delivery. `spread`: the value is a dict of arguments. `collect` takes every
    value of an async generator; the result is then None."""
    if injected.needed:
        return _with_dependencies(function, injected, spread, collect)
    call = _with_provided(function, injected, spread)
    return _exhausted(call, collect) if collect is not None and inspect.isasyncgenfunction(function) else call


def _exhausted(call: Invoke, collect: Collect) -> Invoke:
    async def exhausted(delivery: Delivery, value: Any) -> None:
        async for one in call(delivery, value):  # type: ignore[attr-defined]  # an async generator's call
            collect(delivery, one)

    return exhausted


def _with_provided(call: Function, injected: Injected, spread: bool) -> Invoke:
    provided = tuple(injected.provided.items())
    if spread:
        if not provided:
            return lambda delivery, value: call(**value)
        return lambda delivery, value: call(**value, **{name: provide(delivery) for name, provide in provided})
    if not provided:
        return lambda delivery, value: call(value)
    if len(provided) == 1 and provided[0][1] is itself:
        name = provided[0][0]
        return lambda delivery, value: call(value, **{name: delivery})
    if len(provided) == 1:  # by far the commonest: no dict comprehension, which is a frame of its own in 3.11
        name, provide = provided[0]
        return lambda delivery, value: call(value, **{name: provide(delivery)})
    return lambda delivery, value: call(value, **{name: provide(delivery) for name, provide in provided})


def _with_dependencies(function: Function, injected: Injected, spread: bool, collect: Collect | None) -> Invoke:
    order = in_order(list(injected.needed.values()))
    many = inspect.isasyncgenfunction(function)

    async def call(delivery: Delivery, value: Any, values: Mapping[Node, object]) -> Any:
        arguments = {name: provide(delivery) for name, provide in injected.provided.items()}
        arguments |= {name: values[node] for name, node in injected.needed.items()}
        made = function(**value, **arguments) if spread else function(value, **arguments)
        if not many:
            return await made
        async for one in made:
            if collect is not None:
                collect(delivery, one)

    async def run(delivery: Delivery, value: Any) -> Any:
        failure: BaseException | None = None
        result: Any = None
        async with AsyncExitStack() as stack:
            values: dict[Node, object] = {}
            for node in order:
                values[node] = await node.open(delivery, values, stack)
            try:
                result = await call(delivery, value, values)
            except BaseException as error:  # noted before the dependencies see it, for one may swallow it
                failure = error
                raise
        if failure is not None:  # a dependency swallowed it: the message has failed all the same
            raise failure
        return result

    return run
