"""What can go wrong, by whose fault, and how it is said.

BuslineError
├── ConfigError       a declaration is wrong: all of an App's, together, at start
├── Invalid           this value, message or request can never work as it is
├── Unavailable       the engine did not confirm in time: the outcome is unknown
├── JobFailed         the job asked about ended in the dead letters
└── NoResult          the job asked about keeps no result, or no longer

Signals a function raises are not errors of busline: Reject, RetryLater.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

EXCERPT = 60
ERROR_LIMIT = 8 * 1024


class BuslineError(Exception):
    """Base of every error that busline raises."""


class ConfigError(BuslineError):
    """Every wrong declaration of an App, together. `problems` holds them one by one."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Invalid(BuslineError, ValueError):
    """A value, message or request that can never work as it is. Nothing was sent or changed, unless
    the text says so."""


class Unavailable(BuslineError):
    """The engine did not confirm in time: the outcome is unknown. A job is repeated safely with
    `id=`; a record may be there twice then.

    `confirmed`: of several messages the indexes of those that were confirmed all the same."""

    confirmed: Collection[int] = ()


class Cause(NamedTuple):
    """One of the errors behind another: what it was raised from, or one of its group."""

    error_type: str
    error: str

    def __str__(self) -> str:
        return f"{self.error_type}: {self.error}" if self.error else self.error_type


class JobFailed(BuslineError):
    """The job ended in the dead letters. `error_type`, `message`, `causes` (the nearest first) and
    `traceback` are those of its last attempt."""

    def __init__(
        self,
        error_type: str,
        message: str,
        attempts: int,
        causes: Sequence[Cause] = (),
        traceback: str | None = None,
    ) -> None:
        self.error_type, self.message, self.attempts = error_type, message, attempts
        self.causes, self.traceback = tuple(causes), traceback
        behind = "".join(f", from {one}" for one in self.causes)
        super().__init__(f"{error_type}: {message} (after {attempts} attempts){behind}")
        if traceback is not None:
            self.add_note(f"In its worker:\n{traceback}")


class NoResult(BuslineError):
    """The task keeps no result, or it is no longer kept."""


class Reject(Exception):
    """Raised by a function: this message is not wanted. It goes to the dead letters at once, with
    `reason`."""

    def __init__(self, reason: str) -> None:
        self.reason = cut(text_of(reason))
        super().__init__(self.reason)


class RetryLater(Exception):
    """Raised by a function: not now. The same attempt runs again after `delay` seconds; `counted`:
    as the next one."""

    def __init__(
        self, delay: float | timedelta, reason: str = "", *, counted: bool = False
    ) -> None:
        self.delay = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        self.reason, self.counted = cut(text_of(reason)), counted
        super().__init__(self.reason or f"again in {self.delay:g} s")


def wrong(name: object, expected: str, got: str, remedy: str, *, place: str = "") -> str:
    """The one form of every error text: what, where, what was expected, what came, what to do."""
    at = f" at {place}" if place else ""
    return f"'{name}'{at}: expected {expected}, got {got}. {remedy}"


def excerpt(value: object) -> str:
    """A short, escaped piece of a value, fit for a log."""
    text = repr(bytes(value[: EXCERPT + 1]))[1:] if isinstance(value, bytes) else repr(value)
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "..."


def text_of(value: object) -> str:
    """As str() would have it, where that works."""
    try:
        return str(value)
    except Exception as error:  # whatever a user's own __str__ raises
        return f"<{type(value).__name__} whose text cannot be made: {type(error).__name__}>"


def cut(text: str, limit: int = ERROR_LIMIT) -> str:
    """A text of any length as a dead letter keeps it."""
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) > limit:
        raw = raw[:limit] + b"..."
    return raw.decode("utf-8", "ignore")
