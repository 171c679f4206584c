"""What users of job queues rely on, on every engine."""

import asyncio
import contextvars
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from busline import (
    INJECTED,
    App,
    Delivery,
    Invalid,
    JobFailed,
    NoResult,
    Reject,
    Retry,
    RetryLater,
    Router,
)
from tests.stories.conftest import Tell


async def test_three_attempts_are_three_runs_at_0_10_and_30_seconds(tell: Tell) -> None:
    app, runs = App("a"), list[tuple[int, float]]()

    @app.task(retry=Retry(3, delay=10, factor=2, jitter=False))
    async def fails(delivery: Delivery = INJECTED) -> None:
        runs.append((delivery.attempt, app.bus().clock.time()))
        raise KeyError("mine")

    async with tell(app) as story:
        begun = story.clock.now
        await fails.enqueue()
        await story.advance(9)
        assert len(runs) == 1
        await story.advance(100)

        assert [(attempt, round(at - begun)) for attempt, at in runs] == [(1, 0), (2, 10), (3, 30)]
        assert (await story.dead())[0].error_type == "KeyError"


async def test_retry_later_repeats_the_same_attempt(tell: Tell) -> None:
    app, attempts = App("a"), list[int]()

    @app.task(retry=Retry(2, delay=1, jitter=False))
    async def busy(delivery: Delivery = INJECTED) -> None:
        attempts.append(delivery.attempt)
        if len(attempts) < 3:
            raise RetryLater(5, "busy")
        raise ValueError

    async with tell(app) as story:
        await busy.enqueue()
        await story.advance(60)

        assert attempts == [1, 1, 1, 2]


async def test_options_win_over_the_task_and_the_task_over_the_app(tell: Tell) -> None:
    app, runs = App("a", retry=Retry(2, delay=0)), list[str]()

    @app.task
    async def of_app() -> None:
        runs.append("app")
        raise ValueError

    @app.task(retry=Retry(3, delay=0))
    async def of_task() -> None:
        runs.append("task")
        raise ValueError

    async with tell(app) as story:
        await of_app.enqueue()
        await of_task.enqueue()
        await story.advance(10)
        assert (runs.count("app"), runs.count("task")) == (2, 3)
        await of_task.options(retry=Retry(1)).enqueue()
        await story.advance(10)
        assert runs.count("task") == 4


async def test_a_result_is_typed_kept_and_waited_for(tell: Tell) -> None:
    app = App("a")

    @app.task
    async def add(one: int, when: datetime) -> datetime:
        return when + timedelta(days=one)

    async with tell(app) as story:
        job = await add.enqueue(1, datetime(2026, 1, 1, tzinfo=UTC))
        assert job.created and await job.result(timeout=60) == datetime(2026, 1, 2, tzinfo=UTC)
        assert (await add.job(job.id).status()).state == "succeeded"
        story.clock.move(3601)
        with pytest.raises(NoResult):
            await add.job(job.id).result()


async def test_a_failed_job_fails_its_waiter(tell: Tell) -> None:
    app = App("a")

    @app.task(retry=Retry(1))
    async def breaks() -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
        return 1

    async def fails() -> None:
        raise ValueError("no") from ConnectionError("gone")

    async with tell(app) as story:
        job = await breaks.enqueue()
        with pytest.raises(
            JobFailed, match=r"ValueError: no \(after 1 attempts\), from ConnectionError: gone"
        ) as caught:
            await job.result(timeout=60)
        failed, (letter,) = caught.value, await story.dead()
        assert (failed.attempts, failed.causes, failed.traceback) == (
            1,
            letter.causes,
            letter.traceback,
        )
        assert [one.error_type for one in failed.causes] == [
            "ConnectionError"
        ] and "in fails\n" in failed.__notes__[0]
        assert (await job.status()).state == "failed"


async def test_a_task_without_result_says_so_at_once(tell: Tell) -> None:
    app = App("a")

    @app.task
    async def nothing() -> None: ...

    async with tell(app) as story:
        job = await nothing.enqueue()
        with pytest.raises(NoResult, match="keep_result="):
            await job.result()
        await story.settled()
        assert (await job.status()).state == "unknown"


async def test_only_the_wait_ends_at_a_timeout(tell: Tell) -> None:
    app = App("a")

    @app.task
    async def later() -> int:
        return 1

    async with tell(app) as story:
        job = await later.options(delay=60).enqueue()
        waiting = asyncio.ensure_future(job.result(timeout=5))
        await story.advance(6)
        with pytest.raises(TimeoutError, match="Only the wait ended"):
            await waiting
        assert (await job.status()).state == "delayed"
        await story.advance(60)
        assert await job.result() == 1


async def test_a_timeout_is_a_failed_attempt_and_finally_runs(tell: Tell) -> None:
    app, ended = App("a"), list[str]()

    @app.task(timeout=5, retry=Retry(1))
    async def slow() -> int:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("finally")
        return 1

    async with tell(app) as story:
        job = await slow.enqueue()
        await asyncio.sleep(0.05)
        story.clock.move(5.1)
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=60)
        assert caught.value.error_type == "TimeoutError" and ended == ["finally"]


async def test_an_id_gives_the_first_job_and_unique_is_a_lock(tell: Tell) -> None:
    app, runs = App("a"), list[int]()

    @app.task
    async def once(n: int) -> int:
        runs.append(n)
        return n

    async with tell(app) as story:
        first = await once.options(id="x").enqueue(1)
        again = await once.options(id="x").enqueue(2)
        assert first.created and not again.created and again.id == "x"
        assert await again.result(timeout=60) == 1

        held = await once.options(unique="k", delay=60).enqueue(3)
        second = await once.options(unique="k").enqueue(4)
        assert not second.created and second.id == held.id
        await story.advance(61)
        assert (await once.options(unique="k").enqueue(5)).created
        await story.settled()
        assert runs == [1, 3, 5]


async def test_a_stray_cancellation_or_exit_fails_one_delivery_and_ends_nothing(tell: Tell) -> None:
    app, raised = (
        App("a"),
        [asyncio.CancelledError(), SystemExit(1), KeyboardInterrupt(), GeneratorExit()],
    )

    @app.task(retry=Retry(1))
    async def strange(n: int) -> None:
        if n < len(raised):
            raise raised[n]
        inner = asyncio.ensure_future(asyncio.sleep(100))
        inner.cancel()
        if n == len(raised):
            await inner

    async with tell(app) as story:
        for n in range(6):
            await strange.enqueue(n)
        await story.settled()

        assert {one.error_type for one in await story.dead()} == {
            "CancelledError",
            "SystemExit",
            "KeyboardInterrupt",
            "GeneratorExit",
        }
        assert len(await story.dead()) == 5 and story.counts("strange").handled == 1


async def test_a_sync_function_runs_in_a_thread_and_sees_the_context(tell: Tell) -> None:
    app, threads = App("a"), list[str]()

    @app.task
    def work(n: int) -> int:
        threads.append(threading.current_thread().name)
        time.sleep(0.001)
        return n * 2

    async with tell(app):
        jobs = await app.enqueue_many(work.call(n) for n in range(5))
        assert await jobs.results(timeout=60) == [0, 2, 4, 6, 8]
        assert threading.main_thread().name not in threads
    assert work(4) == 8


async def test_context_variables_never_leak(tell: Tell) -> None:
    app, seen = App("a"), list[int]()
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    @app.task
    async def sets(n: int) -> None:
        seen.append(variable.get())
        variable.set(n)

    async with tell(app) as story:
        variable.set(99)
        for n in range(1, 4):
            await sets.enqueue(n)
        await story.settled()

        assert seen == [0, 0, 0]


async def test_a_reject_is_dead_at_once_with_its_reason(tell: Tell) -> None:
    app = App("a")

    @app.task
    async def refuses() -> None:
        raise Reject("gone")

    async with tell(app) as story:
        await refuses.enqueue()
        await story.settled()
        letter = (await story.dead())[0]
        assert (letter.reason, letter.attempts) == ("gone", 1)


async def test_a_result_that_cannot_be_encoded_is_dead_at_once(tell: Tell) -> None:
    app, runs = App("a"), list[int]()

    @app.task
    async def odd() -> float:
        runs.append(1)
        return float("nan")

    async with tell(app) as story:
        await odd.enqueue()
        await story.advance(20)
        assert len(runs) == 1 and "finite" in (await story.dead())[0].reason


async def test_sends_of_a_failed_attempt_are_dropped_and_now_ones_are_not(tell: Tell) -> None:
    app, seen = App("a"), list[str]()

    @app.task
    async def note(text: str) -> None:
        seen.append(text)

    @app.task(retry=Retry(2, delay=1, jitter=False))
    async def parent(delivery: Delivery = INJECTED) -> None:
        job = await note.enqueue(f"with {delivery.attempt}")
        assert "leaves with the outcome" in repr(job)
        with pytest.raises(Invalid, match="now=True"):
            await job.result()
        await note.options(now=True).enqueue(f"now {delivery.attempt}")
        if delivery.attempt == 1:
            raise ValueError

    async with tell(app) as story:
        await parent.enqueue()
        await story.advance(10)
        assert sorted(seen) == ["now 1", "now 2", "with 2"]


async def test_an_unknown_task_waits_a_quarter_of_an_hour_and_is_dead(tell: Tell) -> None:
    app = App("a")

    @app.task
    async def known() -> None: ...

    async with tell(app) as story:
        message = story.app.bus().message(b"{}", task="newer")
        await story.jobs.publish(known.queue_address(), [message])
        await story.advance(800)
        assert await story.dead() == []
        await story.advance(400)
        letter = (await story.dead())[0]
        assert "'newer'" in letter.reason and "known" in letter.reason


async def test_arguments_of_every_kind_come_out_as_they_went_in(tell: Tell) -> None:
    app, seen = App("a"), list[object]()
    huge, moment = 2**70 + 1, datetime(2026, 3, 1, 12, tzinfo=UTC)

    @app.task
    async def takes(
        n: int, raw: bytes, when: datetime, extra: dict[str, object], rest: int = 7
    ) -> None:
        seen.append((n, raw, when, extra, rest))

    async with tell(app) as story:
        await takes.enqueue(huge, b"\x00bytes", moment, {"n": -huge})
        await story.settled()
        assert seen == [(huge, b"\x00bytes", moment, {"n": -huge}, 7)]
        for bad in (float("nan"), float("inf")):
            with pytest.raises(Invalid, match=r"extra\.deep\.0"):
                await takes.enqueue(1, b"", moment, {"deep": [bad]})


async def test_a_unique_key_is_of_one_task_alone(tell: Tell) -> None:
    app, one, two = App("a"), Router(prefix="one."), Router(prefix="two.")
    app.include(one)
    app.include(two)

    @one.task(name="send")
    async def send_one() -> None: ...

    @two.task(name="send")
    async def send_two() -> None: ...

    async with tell(app):
        assert (await send_one.options(unique="k", delay=60).enqueue()).created
        assert (await send_two.options(unique="k", delay=60).enqueue()).created
        assert not (await send_two.options(unique="k").enqueue()).created


async def test_a_thread_that_times_out_is_awaited_before_the_next_attempt(tell: Tell) -> None:
    app, running, most = App("a"), [0], [0]
    gate = threading.Event()

    @app.task(timeout=5, retry=Retry(2, delay=0))
    def stuck() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        gate.wait(10)
        running[0] -= 1

    async with tell(app) as story:
        await stuck.enqueue()
        while not running[0]:
            await asyncio.sleep(0.001)
        story.clock.move(6)
        await asyncio.sleep(0.05)
        assert running == [1] and story.counts("stuck").retried == 0
        gate.set()
        await story.advance(1)
        assert most == [1] and (await story.dead()) == [] and story.counts("stuck").handled == 1
