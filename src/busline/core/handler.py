"""What the worker runs: the user's function with its whole chain, compiled at start."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import dataclass
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Protocol

from busline.core.depends import Node, in_order, itself
from busline.core.errors import Reject, wrong
from busline.core.function import Function, awaited, by_name, kind_of
from busline.core.message import Delivery
from busline.core.outcome import Outcome
from busline.core.signature import Injected
from busline.core.threads import in_thread


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """`run` raises only what the policy cannot see: cancellations and exits, for which `fail` is
    asked. `timeout`: seconds for one attempt. `threaded`: it runs in a thread, which nothing can
    end."""

    name: str
    run: Callable[[Delivery], Awaitable[Outcome]]
    fail: Callable[[Delivery, BaseException], Outcome]
    timeout: float | None = None
    threaded: bool = False


# of a delivery, its value, and where there are some, the dependencies' values
Call = Callable[..., Any]
Invoke = Callable[[Delivery, Any], Awaitable[object]]


class Collect(Protocol):
    """Takes what a function gave back."""

    def __call__(self, delivery: Delivery, value: Any, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """What becomes of what a function gives back. `collect` takes a returned value, and where
    `each` is said every yielded one: a function that yields without it has failed."""

    collect: Collect | None = None
    each: bool = False

    async def take(self, delivery: Delivery, value: Any) -> Any:
        """Runs what was given back to its end. Returns the value behind it; None where many were
        yielded."""
        value = await awaited(value)
        if isinstance(value, (AsyncGeneratorType, GeneratorType)):
            return await self._drive(delivery, value)
        if self.collect is not None:
            self.collect(delivery, value)
        return value

    async def _drive(self, delivery: Delivery, values: Any) -> None:
        collect = self.collect
        if collect is None or not self.each:
            await _closed(values)
            remedy = "Name the topic with publish=, or in a task return a list."
            raise Reject(
                wrong(delivery.handler, "a function that returns", "one that yields", remedy)
            )
        if isinstance(values, GeneratorType):
            await in_thread(partial(_collected, values, partial(collect, delivery)))
            return
        async with aclosing(values):
            async for value in values:
                collect(delivery, value)


NOTHING_LEFT = Ending()


async def _closed(values: Any) -> None:
    if isinstance(values, GeneratorType):
        values.close()
    else:
        await values.aclose()


def _collected(values: Any, collect: Callable[[Any], None]) -> None:
    with closing(values):
        for value in values:
            collect(value)


def invoke(
    function: Function, injected: Injected, ending: Ending, *, spread: bool
) -> tuple[Invoke, Ending]:
    """The call of the function for one delivery, and what is left to do with what it gives back:
    nothing where it has dependencies, which are to see how it ends. `spread`: the value is a dict
    of arguments."""
    call = by_name(function) if spread else function
    if injected.needed:
        return _with_dependencies(function, call, injected, ending, spread), NOTHING_LEFT
    return _awaitable(function, _with_provided(call, injected, spread)), ending


def _awaitable(function: Function, call: Call) -> Call:
    """The call as one that can be awaited: in the loop, or in a thread where it would block the
    loop."""
    if inspect.iscoroutinefunction(function):
        return call
    if kind_of(function).threaded:
        return lambda delivery, *rest: in_thread(partial(call, delivery, *rest), key_of(delivery))

    async def in_loop(delivery: Delivery, *rest: Any) -> Any:
        return call(delivery, *rest)

    return in_loop


def key_of(delivery: Delivery) -> tuple[str, str]:
    """What no two threads of a process work at: one message, for one handler."""
    return delivery.handler, delivery.position or delivery.id


def _with_provided(call: Function, injected: Injected, spread: bool) -> Call:
    provided = tuple(injected.provided.items())
    if spread:
        if not provided:
            return lambda delivery, value: call(**value)
        return lambda delivery, value: call(
            **value, **{name: provide(delivery) for name, provide in provided}
        )
    if not provided:
        return lambda delivery, value: call(value)
    if len(provided) == 1 and provided[0][1] is itself:
        name = provided[0][0]
        return lambda delivery, value: call(value, **{name: delivery})
    # by far the commonest: no dict comprehension, which is a frame of its own in 3.11
    if len(provided) == 1:
        name, provide = provided[0]
        return lambda delivery, value: call(value, **{name: provide(delivery)})
    return lambda delivery, value: call(
        value, **{name: provide(delivery) for name, provide in provided}
    )


def _with_dependencies(
    function: Function, target: Call, injected: Injected, ending: Ending, spread: bool
) -> Invoke:
    order = in_order(list(injected.needed.values()))

    def bare(delivery: Delivery, value: Any, values: Mapping[Node, object]) -> Any:
        arguments = {name: provide(delivery) for name, provide in injected.provided.items()}
        arguments |= {name: values[node] for name, node in injected.needed.items()}
        return target(**value, **arguments) if spread else target(value, **arguments)

    call = _awaitable(function, bare)

    async def run(delivery: Delivery, value: Any) -> Any:
        failure: BaseException | None = None
        result: Any = None
        async with AsyncExitStack() as stack:
            values: dict[Node, object] = {}
            try:
                for node in order:
                    values[node] = await node.open(delivery, values, stack)
                result = await ending.take(delivery, await call(delivery, value, values))
            # noted before the dependencies see it, for one may swallow it
            except BaseException as error:
                failure = error
                raise
        if failure is not None:  # a dependency swallowed it: the message has failed all the same
            raise failure
        return result

    return run
