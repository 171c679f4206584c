"""Exits out of what a function started. The loop ends itself with a SystemExit or KeyboardInterrupt
that leaves a task: a function's tasks fail with `Exited` instead, which is no more than a failed
attempt."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from busline.runtime.sending import HANDLING


class Exited(BaseException):
    """A task that a function started wanted the process to end. Its cause says with what."""


class Contained(Coroutine[Any, Any, Any]):
    """A coroutine whose exits are turned into Exited."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        # whoever looks at a task is shown the user's own coroutine
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return repr(self._inner)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def send(self, value: Any, /) -> Any:
        return _contained(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        return _contained(self._inner.throw, *error)

    def close(self) -> None:
        self._inner.close()


def _contained(step: Callable[..., Any], *given: Any) -> Any:
    try:
        return step(*given)
    except (SystemExit, KeyboardInterrupt) as error:
        raise Exited(repr(error)) from error


@contextmanager
def contained() -> Generator[None]:
    """While it is entered, tasks of this loop that functions start cannot end the loop."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def task(loop: asyncio.AbstractEventLoop, coro: Any, **given: Any) -> Any:
        around = given.get("context")
        if (HANDLING.get() if around is None else around.get(HANDLING)) is not None:
            coro = Contained(coro)
        return (
            asyncio.Task(coro, loop=loop, **given)
            if before is None
            else before(loop, coro, **given)
        )

    loop.set_task_factory(task)
    try:
        yield
    finally:
        if loop.get_task_factory() is task:
            loop.set_task_factory(before)
