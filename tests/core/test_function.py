"""What a function is, under its wrappers."""

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest

from busline.core.function import Kind, bound, innermost, kind_of


async def coroutine(n: int) -> int:
    return n


async def stream(n: int) -> AsyncGenerator[int]:
    yield n


def generator(n: int) -> Generator[int]:
    yield n


def plain(n: int) -> int:
    return n


def wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapped


class Calls:
    """An object whose call is a method of a kind."""

    async def __call__(self, n: int) -> int:
        return n

    async def method(self, n: int) -> int:
        return n

    @classmethod
    async def of_class(cls, n: int) -> int:
        return n

    @staticmethod
    def static(n: int) -> Generator[int]:
        yield n


class Wrapped:
    @wrapper
    async def __call__(self, n: int) -> AsyncGenerator[int]:
        yield n


FORMS: list[tuple[Callable[..., Any], Kind]] = [
    (coroutine, Kind.COROUTINE),
    (stream, Kind.ASYNC_GENERATOR),
    (generator, Kind.GENERATOR),
    (plain, Kind.PLAIN),
    (wrapper(coroutine), Kind.COROUTINE),
    (wrapper(wrapper(stream)), Kind.ASYNC_GENERATOR),
    (wrapper(generator), Kind.GENERATOR),
    (functools.partial(coroutine), Kind.COROUTINE),
    (functools.partial(wrapper(stream)), Kind.ASYNC_GENERATOR),
    (wrapper(functools.partial(coroutine, n=1)), Kind.COROUTINE),
    (functools.partial(functools.partial(generator)), Kind.GENERATOR),
    (Calls(), Kind.COROUTINE),
    (Calls().method, Kind.COROUTINE),
    (Calls.of_class, Kind.COROUTINE),
    (Calls.static, Kind.GENERATOR),
    (Wrapped(), Kind.ASYNC_GENERATOR),
    (functools.partial(Calls()), Kind.COROUTINE),
    (functools.lru_cache(plain), Kind.PLAIN),
    (lambda n: coroutine(n), Kind.PLAIN),
    (Calls, Kind.PLAIN),
    (int, Kind.PLAIN),
    (len, Kind.PLAIN),
]


@pytest.mark.parametrize(("function", "kind"), FORMS)
def test_the_outermost_layer_that_shows_a_kind_decides(
    function: Callable[..., Any], kind: Kind
) -> None:
    assert kind_of(function) is kind


def test_an_async_wrapper_around_a_generator_is_what_it_is_itself() -> None:
    @functools.wraps(stream)
    async def collected(n: int) -> list[int]:
        return [one async for one in stream(n)]

    assert kind_of(collected) is Kind.COROUTINE


def test_a_wrapper_of_itself_ends() -> None:
    def strange() -> None: ...

    strange.__wrapped__ = strange  # type: ignore[attr-defined]  # as broken decorators leave it

    assert kind_of(strange) is Kind.PLAIN


def test_the_innermost_has_the_name_and_what_a_partial_gave_is_known() -> None:
    given = functools.partial(functools.partial(wrapper(coroutine), n=1))

    assert innermost(given) is coroutine
    assert bound(given) == {"n"}
