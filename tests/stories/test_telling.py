"""What the log says of attempts that fail and of lanes that wait."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from busline import App, JobFailed, Reject, Retry, RetryLater, Topic
from busline.app import Setting
from busline.middleware.metrics import Metrics
from busline.runtime.engines import Engines
from busline.testing import in_memory
from busline.transports.memory import MemoryTransport

numbers = Topic("numbers", int, partitions=1)
app = App("told")


@app.task(retry=Retry(3, delay=2, jitter=False))
async def group() -> None:
    async def fail() -> None:
        raise ValueError("no stock") from ConnectionError("shop closed")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


@app.task(retry=Retry(1))
async def refuse(text: str) -> None:
    raise Reject(text)


@app.subscriber(numbers, retry=Retry(2, delay=4, jitter=False))
async def wait(number: int) -> None:
    if number == 0:
        raise RetryLater(8, "the shop\nis closed")
    raise KeyError(number)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "busline"):
        yield caplog


def lines(said: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in said.records]


async def test_each_failed_attempt_is_one_line_with_its_error_and_cause(
    said: pytest.LogCaptureFixture,
) -> None:
    async with in_memory(app, errors="keep") as bus:
        job = await group.enqueue()
        await bus.advance(10)

    error = "ValueError: no stock (from ConnectionError: shop closed)"
    first, second, dead = lines(said)
    assert first.startswith(
        f"'group' {job.id}, attempt 1, failed: {error}; it runs again in 2 s, at 20"
    ) and first.endswith(" UTC")
    assert second.startswith(
        f"'group' {job.id}, attempt 2, failed: {error}; it runs again in 4 s, at "
    )
    assert (
        dead
        == f"'group' {job.id}, attempt 3, is in the dead letters: all 3 attempts failed: {error}"
    )
    assert [(one.__dict__["error_type"], one.__dict__["error"]) for one in said.records] == [
        ("ValueError", "no stock")
    ] * 3


async def test_a_traceback_comes_with_a_handlers_first_failure_and_then_once_a_minute(
    said: pytest.LogCaptureFixture,
) -> None:
    async with in_memory(app, errors="keep") as bus:
        await group.enqueue()
        await bus.advance(10)
        await bus.advance(51)
        await group.enqueue()
        await bus.advance(10)

    assert [one.exc_info is not None for one in said.records] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


async def test_at_the_level_debug_each_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "busline"):
        async with in_memory(app, errors="keep") as bus:
            await group.enqueue()
            await bus.advance(10)

    assert [one.exc_info is not None for one in caplog.records] == [True] * 3


async def test_what_was_meant_has_no_traceback_and_is_told_once(
    said: pytest.LogCaptureFixture,
) -> None:
    async with in_memory(app, errors="keep"):
        job = await refuse.enqueue("no\naddress")

    assert (
        lines(said) == [f"'refuse' {job.id}, attempt 1, is in the dead letters: no address"]
        and said.records[0].exc_info is None
    )


async def test_a_filter_that_raises_takes_no_message_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raises(record: logging.LogRecord) -> bool:
        raise KeyError("filter")

    logging.getLogger("busline").addFilter(raises)
    try:
        async with in_memory(app, errors="keep") as bus:
            await group.enqueue()
            await bus.advance(10)
            assert bus.counts(group)["dead"] == 1
    finally:
        logging.getLogger("busline").removeFilter(raises)

    assert "KeyError: 'filter'" in capsys.readouterr().err


async def test_jobs_that_all_ask_to_come_later_are_told_together(
    said: pytest.LogCaptureFixture,
) -> None:
    many = App("many")

    @many.task
    async def closed(n: int) -> None:
        raise RetryLater(4, "the shop is closed")

    async with in_memory(many) as bus:
        await many.enqueue_many(closed.call(n) for n in range(50))
        await bus.advance(13)

    first, second = lines(said)
    assert (
        ", attempt 1, asks to come later (the shop is closed); it runs again in 4 s, at " in first
    )
    assert ", attempt 1, asks to come later, as do 149 others (the shop is closed); " in second


async def test_a_lane_that_waits_says_for_what_and_until_when(
    said: pytest.LogCaptureFixture,
) -> None:
    async with in_memory(app, errors="keep") as bus:
        await bus.publish(numbers, 0)
        await bus.publish(numbers, 1)
        await bus.advance(7)
        assert lines(said)[0].startswith(
            "'wait' numbers/0@0, attempt 1, asks to come later (the shop is closed); it runs again"
            " in 8 s, at "
        )
        assert (
            lines(said)[0].endswith(" UTC, and what is behind it in its lane waits")
            and len(lines(said)) == 1
        )
        await bus.advance(300)

    assert any(
        "'wait' numbers/0@1, attempt 1, failed: KeyError: 1; it runs again in 4 s, at " in one
        for one in lines(said)
    )


async def test_each_place_that_tells_of_a_failure_names_its_cause(
    said: pytest.LogCaptureFixture,
) -> None:
    own, spans, metrics, engine = App("own"), InMemorySpanExporter(), Metrics(), MemoryTransport()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))

    @own.task(retry=Retry(2, delay=0))
    async def sell() -> int:
        async def fail() -> None:
            raise ValueError("no stock") from ConnectionError("shop closed")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
        return 1

    setting = Setting(Engines(engine, engine), tracer_provider=provider, metrics=metrics)
    async with own.running_with(setting):
        job = await sell.enqueue()
        with pytest.raises(JobFailed) as caught:
            await job.result(10)
        (letter,) = await engine.inspector.dead()

    cause = "ConnectionError: shop closed"
    assert [cause in line for line in lines(said)] == [True, True]
    assert cause in str(caught.value) and cause in (caught.value.traceback or "")
    assert [str(one) for one in letter.causes] == [cause] and (letter.error_type, letter.error) == (
        "ValueError",
        "no stock",
    )
    attempts = [one for one in spans.get_finished_spans() if one.name.startswith("process")]
    assert [cause in (one.status.description or "") for one in attempts] == [True, True]
    assert metrics.handlers["sell"].errors == {"ValueError": 2}
