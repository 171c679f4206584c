"""Exits and other errors that are no Exception: a failed attempt of one message, whatever they come
out of."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest

from busline import INJECTED, App, Depends, Reject, Retry
from busline.testing import in_memory


class Private(BaseException):
    pass


def leaves(error: BaseException) -> Any:
    raise error


async def child(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def by_itself(error: BaseException) -> None:
    raise error


async def gathered(error: BaseException) -> None:
    await asyncio.gather(child(error), asyncio.sleep(0))


async def grouped(error: BaseException) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child(error))


async def nested(error: BaseException) -> None:
    await asyncio.create_task(gathered(error))


async def left_alone(error: BaseException) -> None:
    task = asyncio.create_task(child(error))
    await asyncio.wait((task,))
    task.result()


async def in_another_thread(error: BaseException) -> None:
    await asyncio.to_thread(leaves, error)


WAYS: list[Callable[[BaseException], Any]] = [
    by_itself,
    gathered,
    grouped,
    nested,
    left_alone,
    in_another_thread,
    leaves,
]
ERRORS: list[BaseException] = [
    SystemExit(0),
    SystemExit("text"),
    KeyboardInterrupt(),
    GeneratorExit(),
    Private(),
    asyncio.CancelledError(),
]


CASES = [
    (way, error)
    for way in WAYS
    for error in ERRORS
    if (way, type(error)) != (grouped, asyncio.CancelledError)
]  # which a group takes for its own


@pytest.mark.parametrize(
    ("way", "error"), CASES, ids=lambda one: getattr(one, "__name__", None) or repr(one)
)
async def test_it_is_a_failed_attempt_of_that_message_alone(
    way: Callable[[BaseException], Any], error: BaseException
) -> None:
    app, attempts, done = App("a"), list[int](), list[int]()

    async def leave() -> None:
        attempts.append(1)
        await way(error)

    def leave_plainly() -> None:
        attempts.append(1)
        way(error)

    bad = app.task(name="bad", retry=Retry(2, delay=0))(leave_plainly if way is leaves else leave)

    @app.task
    async def good(n: int) -> None:
        await asyncio.sleep(0)
        done.append(n)

    async with in_memory(app, errors="keep") as bus:
        await app.enqueue_many([good.call(1), bad.call(), good.call(2)])
        await bus.settled()
        assert len(attempts) == 2 and sorted(done) == [1, 2]
        assert [letter.attempts for letter in bus.dead(bad)] == [2]


async def test_a_dependency_and_a_middleware_that_exit_fail_the_attempt() -> None:
    async def exits() -> None:
        sys.exit(3)

    async def interrupts(delivery: Any, call_next: Callable[[Any], Awaitable[object]]) -> object:
        if delivery.handler == "second":
            raise KeyboardInterrupt
        return await call_next(delivery)

    app = App("a", middleware=[interrupts])

    @app.task(retry=Retry(1))
    async def first(_: Annotated[None, Depends(exits)] = INJECTED) -> None: ...

    @app.task(retry=Retry(1))
    async def second() -> None: ...

    async with in_memory(app, errors="keep") as bus:
        await first.enqueue()
        await second.enqueue()
        await bus.settled()
        assert bus.dead(first)[0].error_type == "SystemExit"
        assert bus.dead(second)[0].error_type == "KeyboardInterrupt"


async def test_the_loop_has_its_own_tasks_back_afterwards() -> None:
    app, loop = App("a"), asyncio.get_running_loop()

    @app.task
    async def look() -> None:
        task = asyncio.create_task(child(ValueError()), name="mine")
        assert "child" in repr(task.get_coro()) and task.get_name() == "mine"
        task.cancel()  # before it has begun: nothing of it stays behind
        await asyncio.wait((task,))

    async with in_memory(app) as bus:
        await look.enqueue()
        await bus.settled()

    assert loop.get_task_factory() is None


class Hostile:
    def __str__(self) -> str:
        raise ValueError("no text")


class HostileError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


REASONS: list[tuple[Any, str]] = [
    (404, "404"),
    (ValueError("no"), "no"),
    (Hostile(), "<Hostile whose text"),
]
SAID: list[tuple[Exception, str]] = [
    *((Reject(reason), said) for reason, said in REASONS),
    (HostileError(), "its only"),
]


@pytest.mark.parametrize(
    ("error", "said"), SAID, ids=["number", "error", "hostile", "hostile error"]
)
async def test_a_reason_that_is_no_text_is_told_all_the_same(error: Exception, said: str) -> None:
    app = App("a")

    @app.task(retry=Retry(1))
    async def bad() -> None:
        raise error

    async with in_memory(app, errors="keep") as bus:
        await bad.enqueue()
        await bus.settled()
        (letter,) = bus.dead(bad)
        assert letter.reason.startswith(said) and letter.error_type == type(error).__name__


async def test_a_reason_of_any_length_is_cut() -> None:
    app = App("a")

    @app.task
    async def bad() -> None:
        raise Reject("x" * 20_000_000)

    async with in_memory(app, errors="keep") as bus:
        await bad.enqueue()
        await bus.settled()
        assert len(bus.dead(bad)[0].reason) < 10_000


async def test_a_policy_that_cannot_be_applied_ends_its_attempt() -> None:
    class Judging(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise RuntimeError("not today")

    class Strange(Exception, metaclass=Judging):
        pass

    app, ran = App("a"), list[int]()

    @app.task(retry=Retry(3, on=Strange))
    async def bad() -> None:
        raise ValueError("why")

    @app.task
    async def good(n: int) -> None:
        ran.append(n)

    async with in_memory(app, errors="keep") as bus:
        for _ in range(150):  # more than run at once
            await bad.enqueue()
        await good.enqueue(1)
        await bus.settled()
        assert len(bus.dead(bad)) == 150 and ran == [1]
        assert (
            bus.dead(bad)[0].reason
            == "its retry policy cannot be applied: RuntimeError('not today')"
        )
