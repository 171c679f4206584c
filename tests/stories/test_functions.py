"""Whatever form a function has: it is run to its end before its message is acknowledged, or its
message has failed."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from busline import App, Delivery, Depends, Invalid, Retry, Topic
from busline.testing import in_memory

numbers, doubled = Topic("numbers", int, partitions=1), Topic("doubled", int, partitions=1)
RAN: list[int] = []
CLOSED: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()
    CLOSED.clear()


async def really(n: int) -> int:
    await asyncio.sleep(0)
    RAN.append(n)
    return n


async def forgotten(n: int) -> Any:
    return really(n)


async def future(n: int) -> Any:
    return asyncio.ensure_future(really(n))


def plain(n: int) -> int:
    RAN.append(n)
    return n


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapped


class Handles:
    async def __call__(self, n: int) -> int:
        return await really(n)

    async def method(self, n: int) -> int:
        return await really(n)


class HandlesPlainly:
    def __call__(self, n: int) -> int:
        return plain(n)


async def scaled(n: int, by: int) -> int:
    return await really(n * by)


FORMS: dict[str, Callable[..., Any]] = {
    "a coroutine function": really,
    "a plain function": plain,
    "a plain wrapper": logged(really),
    "a plain wrapper of a plain function": logged(plain),
    "a lambda": lambda n: really(n),
    "a plain function that gives a coroutine": lambda n: forgotten(n),
    "a coroutine that gives a coroutine": forgotten,
    "a coroutine that gives a future": future,
    "a partial": functools.partial(scaled, by=1),
    "a partial of a wrapper": functools.partial(logged(scaled), by=1),
    "a method": Handles().method,
    "an object": Handles(),
    "a plain object": HandlesPlainly(),
    "a wrapped object": logged(Handles()),
}
forms = pytest.mark.parametrize("form", FORMS)


@forms
async def test_a_subscriber_of_any_form_runs_before_its_message_is_acknowledged(form: str) -> None:
    app = App("a")
    app.subscriber(numbers, name="see")(FORMS[form])

    async with in_memory(app) as bus:
        await bus.publish(numbers, 3)

    assert RAN == [3]


@forms
async def test_what_a_subscriber_of_any_form_returns_is_published(form: str) -> None:
    app = App("a")
    app.subscriber(numbers, publish=doubled, name="see")(FORMS[form])

    async with in_memory(app) as bus:
        await bus.publish(numbers, 3)
        assert bus.published(doubled) == [3]


@forms
async def test_a_task_of_any_form_has_its_result(form: str) -> None:
    app = App("a")
    task = app.task(name="see", keep_result=60)(FORMS[form])

    async with in_memory(app) as bus:
        job = await task.enqueue(3)
        await bus.settled()
        assert await job.result() == 3


async def test_a_task_under_a_subscriber_runs_for_both() -> None:
    app = App("a")
    task = app.task(name="also")(really)
    app.subscriber(numbers, name="see")(task)

    async with in_memory(app) as bus:
        await bus.publish(numbers, 1)
        await task.enqueue(2)
        await bus.settled()

    assert RAN == [1, 2]


# --- what yields -----------------------------------------------------------------------------


async def stream(n: int) -> AsyncGenerator[int]:
    try:
        yield n
        yield n + 1
    finally:
        CLOSED.append("stream")


def generator(n: int) -> Generator[int]:
    try:
        yield n
        yield n + 1
    finally:
        CLOSED.append("generator")


async def gives_stream(n: int) -> Any:
    return stream(n)


YIELDING: dict[str, Callable[..., Any]] = {
    "stream": stream,
    "generator": generator,
    "wrapped stream": logged(stream),
    "wrapped generator": logged(generator),
    "partial stream": functools.partial(stream),
    "lambda that gives a stream": lambda n: stream(n),
    "lambda that gives a generator": lambda n: generator(n),
    "coroutine that gives a stream": gives_stream,
}
yielding = pytest.mark.parametrize("form", YIELDING)


@yielding
async def test_everything_that_is_yielded_is_published(form: str) -> None:
    app = App("a")
    app.subscriber(numbers, publish=doubled, name="see")(YIELDING[form])

    async with in_memory(app) as bus:
        await bus.publish(numbers, 3)
        assert bus.published(doubled) == [3, 4]

    assert len(CLOSED) == 1


@yielding
async def test_a_value_that_does_not_fit_closes_the_generator_and_sends_nothing(form: str) -> None:
    app, text = App("a"), Topic("text", str, partitions=1)
    app.subscriber(numbers, publish=text, name="see", retry=Retry(1))(YIELDING[form])

    async with in_memory(app, errors="keep") as bus:
        await bus.publish(numbers, 3)
        assert bus.published(text) == [] and len(bus.dead(numbers)) == 1

    assert len(CLOSED) == 1


@yielding
async def test_what_yields_without_a_place_to_go_is_refused_or_dead_but_not_acknowledged(
    form: str,
) -> None:
    app = App("a")
    app.subscriber(numbers, name="see")(YIELDING[form])
    task = app.task(name="do")(YIELDING[form])
    try:
        async with in_memory(app, errors="keep") as bus:
            await bus.publish(numbers, 3)
            await task.enqueue(3)
            await bus.settled()
            assert len(bus.dead(numbers)) == len(bus.dead(task)) == 1
            assert (
                "expected a function that returns, got one that yields" in bus.dead(task)[0].reason
            )
    except Exception as error:
        assert "got one that yields" in str(error) or "publish= for what it yields" in str(error)


# --- dependencies ----------------------------------------------------------------------------


@dataclass
class Session:
    """A factory with settings of its own, which cannot be hashed."""

    name: str

    async def __call__(self) -> AsyncGenerator[str]:
        try:
            yield self.name
        finally:
            CLOSED.append(self.name)


class PlainSession:
    def __call__(self) -> Generator[str]:
        try:
            yield "session"
        finally:
            CLOSED.append("session")


@logged
async def wrapped_session() -> AsyncGenerator[str]:
    try:
        yield "session"
    finally:
        CLOSED.append("session")


@asynccontextmanager
async def managed() -> AsyncGenerator[str]:
    try:
        yield "session"
    finally:
        CLOSED.append("session")


@contextmanager
def managed_plainly() -> Generator[str]:
    try:
        yield "session"
    finally:
        CLOSED.append("session")


async def named(name: str) -> AsyncGenerator[str]:
    try:
        yield name
    finally:
        CLOSED.append(name)


@pytest.mark.parametrize(
    "dependency",
    [
        Session("session"),
        PlainSession(),
        wrapped_session,
        managed,
        managed_plainly,
        functools.partial(named, name="session"),
        lambda: named("session"),
    ],
)
async def test_a_dependency_of_any_form_gives_its_value_and_is_closed(dependency: Any) -> None:
    app, got = App("a"), list[str]()

    @app.subscriber(numbers)
    async def see(n: int, session: Annotated[str, Depends(dependency)]) -> None:
        got.append(session)
        assert CLOSED == []

    async with in_memory(app) as bus:
        await bus.publish(numbers, 1)

    assert got == CLOSED == ["session"]


async def test_an_object_that_can_be_entered_is_given_as_it_is() -> None:
    app, got = App("a"), list[object]()

    class Client:
        async def __aenter__(self) -> None:
            CLOSED.append("entered")

        async def __aexit__(self, *_: object) -> None: ...

    @app.subscriber(numbers)
    async def see(n: int, client: Annotated[Client, Depends(Client)]) -> None:
        got.append(client)

    async with in_memory(app) as bus:
        await bus.publish(numbers, 1)

    assert isinstance(got[0], Client) and CLOSED == []


async def test_what_a_dependency_swallows_of_anothers_opening_is_not_handled() -> None:
    app = App("a")

    async def swallows() -> AsyncGenerator[None]:
        try:
            yield
        except OSError:
            CLOSED.append("swallowed")

    def fails(before: Annotated[None, Depends(swallows)]) -> None:
        raise OSError("no connection")

    @app.subscriber(numbers, retry=Retry(1))
    async def see(n: int, session: Annotated[None, Depends(fails)]) -> None:
        RAN.append(n)

    async with in_memory(app, errors="keep") as bus:
        await bus.publish(numbers, 1)
        assert [one.error_type for one in bus.dead(see)] == ["OSError"]

    assert RAN == [] and CLOSED == ["swallowed"]


async def test_what_a_partial_has_given_is_not_asked_for() -> None:
    app = App("a")

    async def see(
        n: int, *, session: Annotated[str, Depends(wrapped_session)], delivery: Delivery
    ) -> None:
        assert session == "mine" and delivery.attempt == 1
        RAN.append(n)

    app.subscriber(numbers)(functools.partial(see, session="mine"))

    async with in_memory(app) as bus:
        await bus.publish(numbers, 1)

    assert RAN == [1] and CLOSED == []


async def test_mistakes_are_named_by_the_function_under_its_wrappers() -> None:
    app = App("a")

    async def see(n: int, other: float) -> None: ...

    app.subscriber(numbers)(functools.partial(logged(see)))

    with pytest.raises(Exception, match=r"'other' at .*<locals>\.see: expected Delivery, App"):
        async with in_memory(app):
            pass


def test_invalid_is_what_a_stranger_sees() -> None:
    with pytest.raises(Invalid, match="'timeout' at .*really: expected more than 0 seconds"):
        App("a").subscriber(numbers, timeout=0)(really)


@pytest.mark.parametrize("send", ["enqueue", "publish"])
async def test_a_plain_function_that_sends_without_a_loop_fails_and_says_so(send: str) -> None:
    app, topic = App("a"), Topic("t", int)

    @app.task
    async def child() -> None: ...

    @app.task(retry=Retry(1))
    def parent() -> None:
        _ = child.enqueue() if send == "enqueue" else app.publish(topic, 1)

    async with in_memory(app, errors="keep") as bus:
        await parent.enqueue()
        await bus.settled()
        (letter,) = bus.dead(parent)
    assert (
        f"'parent': expected a function that can await `{send}`, got a plain `def`, in a thread."
        " Make the function `async def`" in letter.reason
    )
