"""What an error says, and what stands behind it."""

import logging

from busline import Invalid, Reject, Retry, RetryLater
from busline.core.causes import causes_of, deciding, details, in_words, leaf, told
from busline.core.errors import ERROR_LIMIT, Cause
from busline.core.message import Delivery, Message
from busline.core.outcome import Outcome, Rejected, Retried
from busline.logs import Handling
from busline.middleware.retries import Judge
from busline.testing.clock import SimClock

GONE, BUSY = ConnectionError("gone"), OSError("busy")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    try:
        raise error from cause
    except BaseException as raised:
        return raised


def judged(error: BaseException, policy: Retry, attempt: int = 1) -> Outcome:
    clock = SimClock()
    message = Message("a", b"1", at=clock.time(), task="t")
    return Judge(policy, clock, in_lane=False).failed(
        Delivery(message, "q", attempt, None, None, None), error
    )


def test_a_group_of_one_is_that_one() -> None:
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [GONE])])

    assert leaf(nested) is GONE and told(nested).error_type == "ExceptionGroup"
    outcome = judged(nested, Retry(3, on=ConnectionError))
    assert isinstance(outcome, Retried) and outcome.error is GONE


def test_the_policy_looks_at_every_error_of_a_group() -> None:
    both = ExceptionGroup("two", [GONE, KeyError("typo")])

    assert isinstance(judged(both, Retry(3)), Retried)
    assert isinstance(judged(both, Retry(3, on=(ConnectionError, KeyError))), Retried)
    for policy in (Retry(3, on=ConnectionError), Retry(3, never=KeyError)):
        outcome = judged(both, policy)
        assert (
            isinstance(outcome, Rejected)
            and outcome.reason == "KeyError is not retried"
            and outcome.error is both
        )


def test_who_decides_in_a_group() -> None:
    later, longer = RetryLater(5, "soon"), RetryLater(9, "later")

    assert deciding(
        ExceptionGroup("g", [GONE, later, ExceptionGroup("in", [longer, Reject("no")])])
    ).args == ("no",)
    outcome = judged(ExceptionGroup("g", [GONE, later, longer]), Retry(1))
    assert isinstance(outcome, Retried) and (outcome.after, outcome.counted) == (9.0, False)
    assert in_words(outcome.error).count("(from ") == 1 and "gone" in in_words(outcome.error)


def test_a_reject_from_a_cause_is_told_by_its_cause() -> None:
    outcome = judged(caused(Reject("no"), GONE), Retry(3))

    assert outcome == Rejected("no", GONE)


def test_what_can_never_work_is_not_retried() -> None:
    for policy in (Retry(3), Retry(3, on=Invalid), Retry(3, on=ValueError)):
        assert isinstance(judged(Invalid("no such queue"), policy), Rejected)
        assert not policy.covers(Invalid("x"))
    assert isinstance(
        judged(ExceptionGroup("g", [GONE, Invalid("no such queue")]), Retry(3)), Rejected
    )


def test_told_to_come_later_and_counted_it_is_an_attempt() -> None:
    first, last = (
        judged(RetryLater(5, "not yet", counted=True), Retry(2), attempt) for attempt in (1, 2)
    )

    assert isinstance(first, Retried) and (first.after, first.counted) == (5.0, True)
    assert (
        isinstance(last, Rejected)
        and last.reason == "all 2 attempts failed"
        and in_words(last.error or GONE) == "RetryLater: not yet"
    )


def test_the_chain_is_told_the_nearest_first_and_each_once() -> None:
    inner = caused(BUSY, GONE)
    GONE.__context__ = inner  # errors may point at each other
    try:
        whole = caused(ExceptionGroup("g", [ValueError("a\nb"), KeyError("c")]), inner)

        assert causes_of(whole) == (
            Cause("ValueError", "a\nb"),
            Cause("KeyError", "'c'"),
            Cause("OSError", "busy"),
            Cause("ConnectionError", "gone"),
        )
        assert (
            in_words(caused(ValueError(), inner))
            == "ValueError (from OSError: busy, from ConnectionError: gone)"
        )
    finally:
        GONE.__context__ = None


def test_what_is_kept_of_an_error_fits_whatever_it_is() -> None:
    error: BaseException = ValueError("x" * 50_000)
    for n in range(3_000):
        error = caused(RuntimeError(f"{n} " + "é" * 10_000 + "\ud800"), error)

    kept = told(error)

    assert (
        12 < len(kept.causes) <= 16
        and ERROR_LIMIT - 1000 < len(kept.details() or b"") <= ERROR_LIMIT
    )
    assert len(told(ValueError("\x00" * 50_000)).details() or b"") <= ERROR_LIMIT
    assert details(kept.details()) == (kept.causes, kept.traceback)


def test_a_traceback_ends_where_the_error_was_raised() -> None:
    def deep(n: int) -> None:
        if not n:
            raise ValueError("here")
        (lambda: deep(n - 1))()

    try:
        deep(200)
    except ValueError as error:
        where = told(error).traceback or ""

    assert where.startswith("...\n") and where.endswith(
        '    raise ValueError("here")\nValueError: here\n'
    )


def test_groups_of_any_depth_are_looked_through() -> None:
    error: Exception = GONE
    for _ in range(3_000):
        error = ExceptionGroup("g", [error])

    assert (
        leaf(error) is GONE
        and in_words(leaf(error)) == "ConnectionError: gone"
        and told(error).error_type == "ExceptionGroup"
    )


def test_errors_that_refuse_to_be_looked_at_are_told_all_the_same() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    kept = told(caused(ValueError("a"), Odd()))

    assert kept.causes[0].error.startswith(
        "<Odd whose text cannot be made"
    ) and "ValueError: a" in (kept.traceback or "")


def test_details_of_others_are_none() -> None:
    for kept in (None, b"", b"{", b"[1]", b"[[1], null]", "text"):
        assert details(kept) == ((), None)


def test_the_filter_leaves_what_users_pass_under_its_names() -> None:
    record = logging.makeLogRecord({"position": 7, "delivery": "home"})

    assert Handling().filter(record) and (
        record.__dict__["position"],
        record.__dict__["handler"],
    ) == (7, None)
