"""Retry: how often, how long apart, and for which errors."""

from dataclasses import dataclass, field
from typing import Any

from busline.core.causes import leaves
from busline.core.clock import Seconds, seconds
from busline.core.errors import Invalid, excerpt, wrong
from busline.core.options import duration, factor, kind, whole

Errors = type[Exception] | tuple[type[Exception], ...]
NUMBERS = ("attempts", "delay", "factor", "max_delay", "jitter", "max_age")
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` runs in all, `delay` seconds after the first, each wait `factor` times the last,
    `max_delay` at most.

    `jitter`: a random moment up to that wait instead. `on`: the errors that are retried, `never`:
    those that are not; any other error is dead at once, and so is `Invalid`. `max_age`: seconds
    after publishing at which it is over whatever is left. A timeout is always retried. `Retry(1)`:
    once, then the dead letters."""

    attempts: int = 5
    delay: Seconds = field(default=1.0, kw_only=True)
    factor: float = field(default=2.0, kw_only=True)
    max_delay: Seconds = field(default=300.0, kw_only=True)
    jitter: bool = field(default=True, kw_only=True)
    on: Errors = field(default=Exception, kw_only=True)
    never: Errors = field(default=(), kw_only=True)
    max_age: Seconds | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        whole("attempts", self.attempts, remedy="Retry(1) runs once.")
        for name in ("delay", "max_delay"):
            duration(name, getattr(self, name), remedy="Retry(delay=0) retries at once.")
        factor("factor", self.factor)
        if self.max_age is not None:
            duration("max_age", self.max_age, zero=False, remedy="Leave it out for no limit.")
        kind("jitter", self.jitter, bool, "True or False")
        for name in ("on", "never"):
            _check_errors(name, getattr(self, name))

    def longest(self, attempt: int) -> float:
        """The longest wait after this attempt, in seconds."""
        delay, most = seconds(self.delay), seconds(self.max_delay)
        try:
            return min(delay * self.factor ** (attempt - 1), most)
        except OverflowError:
            return most if delay else 0.0

    def wait(self, attempt: int, random: float) -> float:
        """Seconds to wait after this attempt; `random` is a number from 0 to 1."""
        return self.longest(attempt) * random if self.jitter else self.longest(attempt)

    def total(self) -> float:
        """The longest that all waits together can take."""
        return sum(self.longest(attempt) for attempt in range(1, self.attempts))

    def covers(self, error: BaseException) -> bool:
        """Whether another attempt may follow this error; of a group, each of its errors. `Invalid`
        can never work."""
        return all(map(self._covers, leaves(error)))

    def _covers(self, error: BaseException) -> bool:
        if isinstance(error, TimeoutError) or not isinstance(error, Exception):
            # a deadline, or a stray cancellation or exit: nothing that the function meant to say
            return True
        return isinstance(error, self.on) and not isinstance(error, (Invalid, *classes(self.never)))

    def numbers(self) -> dict[str, Any]:
        """What can travel with a job. Raises Invalid where `on` or `never` were given: classes do
        not travel."""
        if self.on is not Exception or self.never != ():
            raise Invalid(
                wrong(
                    "retry",
                    "a policy without on= and never=",
                    repr(self)[:60],
                    "Put on= and never= into the task's declaration.",
                )
            )
        return {
            name: value for name in NUMBERS if (value := _plain(getattr(self, name))) is not None
        }


def classes(errors: Errors) -> tuple[type[Exception], ...]:
    """A class, or a tuple of them, as a tuple."""
    return errors if isinstance(errors, tuple) else (errors,)


def _check_errors(name: str, given: Any) -> None:
    for one in classes(given):
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise Invalid(
                wrong(
                    name,
                    "an exception's class, or a tuple of them",
                    excerpt(given),
                    f"Write {name}=(ValueError, KeyError).",
                )
            )


def _plain(value: object) -> object:
    return seconds(value) if hasattr(value, "total_seconds") else value  # type: ignore[arg-type]  # duck type of timedelta


STREAM_RETRY = Retry(3, delay=0.5)
TASK_RETRY = Retry(5)
LANE_LIMIT = 60.0
