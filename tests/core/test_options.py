"""Every option is judged where it is declared or called."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from busline import App, Invalid, Kafka, Queue, Redis, Retry, RetryLater, Topic
from busline.core.message import Delivery, Message
from busline.core.outcome import Rejected, Retried
from busline.core.policy import TASK_RETRY
from busline.middleware.retries import Judge
from busline.testing.clock import SimClock

NAN, INF = float("nan"), float("inf")
app = App("a")
number: Any = 5


@app.task
async def do(n: int) -> None: ...


def option(**given: Any) -> Callable[[], object]:
    return lambda: do.options(**given)


def retry(*positional: Any, **given: Any) -> Callable[[], object]:
    return lambda: Retry(*positional, **given)


def declared(**given: Any) -> Callable[[], object]:
    return lambda: App("b").task(**given)(len)


def subscribed(**given: Any) -> Callable[[], object]:
    return lambda: App("b").subscriber(Topic("t", int), **given)(len)


REFUSED: list[Callable[[], object]] = [
    *(retry(attempts) for attempts in (0, -1, True, 1.5, "3", NAN, 10**30, None)),
    *(
        retry(3, **{name: value})
        for name in ("delay", "max_delay")
        for value in (-1, NAN, INF, "1", True, None, 1e300, timedelta(-1), timedelta.max)
    ),
    *(retry(3, factor=value) for value in (-2, NAN, INF, "2", True, None)),
    *(retry(3, max_age=value) for value in (0, -1, NAN, INF, "1", timedelta(0), 1e300)),
    *(
        retry(3, **{name: value})
        for name in ("on", "never")
        for value in ([ValueError], KeyError(), "ValueError", (ValueError, "x"), int, None)
    ),
    retry(3, jitter="no"),
    *(option(timeout=value) for value in (0, -1, NAN, INF, "30", True, 1e300, timedelta(0))),
    *(
        option(delay=value)
        for value in (-1, NAN, INF, "1", True, 1e300, 1e12, timedelta.max, timedelta(-1))
    ),
    *(option(at=value) for value in ("2026-01-01", 5, datetime(2026, 1, 1))),
    *(
        option(**{name: value})
        for name in ("id", "unique")
        for value in ("", 5, "a\ud800", "a\0", "x" * 513, b"x")
    ),
    *(
        option(headers=value)
        for value in ([("a", "b")], "a", {"a": "\ud800"}, {"a": 5}, {5: "a"}, {"busline-x": "a"})
    ),
    *(option(queue=value) for value in (5, b"a", do)),
    *(option(retry=value) for value in (5, "3", Retry)),
    *(declared(timeout=value) for value in (0, -1, NAN, INF, "30", True)),
    *(declared(keep_result=value) for value in (-1, NAN, INF, 1e300, "30", True)),
    declared(retry=5),
    *(subscribed(timeout=value) for value in (0, -1, NAN, INF, "30", True)),
    subscribed(retry=3),
    lambda: App("b", retry=number),
    *((lambda value=value: Topic("t", int, retention=value)) for value in (0, -1, NAN, INF, "1")),
    *((lambda value=value: Redis("redis://x", lease=value)) for value in (0, -1, NAN, INF, "1")),
    *((lambda value=value: Kafka("x:1", session=value)) for value in (0, -1, NAN, INF, "1")),
]


@pytest.mark.parametrize("make", REFUSED)
def test_what_cannot_be_meant_is_refused_at_once_by_name(make: Callable[[], object]) -> None:
    with pytest.raises(Invalid, match=r"^'.+?'.*: expected .+, got .+\. "):
        make()


TAKEN: list[Callable[[], object]] = [
    retry(1_000_000),
    retry(
        3,
        delay=0,
        factor=0,
        max_delay=timedelta(hours=1),
        max_age=timedelta(hours=1),
        on=(KeyError, OSError),
        never=(),
    ),
    option(timeout=1e-9, delay=0),
    option(timeout=timedelta(seconds=5), delay=timedelta(0)),
    option(at=datetime.min.replace(tzinfo=UTC)),
    option(at=datetime(1969, 1, 1, tzinfo=UTC)),
    option(at=datetime.max.replace(tzinfo=timezone(-timedelta(hours=14)))),
    option(id="\U0001f600" * 512, unique=":::'\";--"),
    option(queue=Queue("a"), retry=Retry(3), headers={"a": "ü"}),
    declared(timeout=timedelta(seconds=5), keep_result=0),
    declared(keep_result=timedelta(days=365)),
]


@pytest.mark.parametrize("make", TAKEN)
def test_what_can_be_meant_is_taken(make: Callable[[], object]) -> None:
    make()


def test_what_is_past_is_at_once_and_never_before_1970() -> None:
    assert do.options(at=datetime(1960, 1, 1, tzinfo=UTC))._sending.at == 0


def test_no_delay_stays_none_however_many_attempts() -> None:
    assert Retry(100_000, delay=0).longest(99_999) == 0
    assert Retry(100_000, delay=1).longest(99_999) == 300
    assert Retry(5, delay=0.1, factor=1e300).longest(4) == 300


@pytest.mark.parametrize("later", [NAN, INF, -INF, -1])
def test_a_signal_with_an_odd_number_ends_its_attempt(later: float) -> None:
    judge = Judge(TASK_RETRY, SimClock(), in_lane=False)
    outcome = judge.failed(
        Delivery(Message("m", b"", at=1e9), "q", 1, None, None, None), RetryLater(later)
    )

    assert isinstance(outcome, Retried | Rejected)
    assert isinstance(outcome, Rejected) or 0 <= outcome.after < 1000
