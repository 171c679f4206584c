"""What is said of attempts that failed: one line each, the traceback not with every one of them."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from busline.core.causes import described, in_words, one_line
from busline.core.clock import Clock, stamp
from busline.core.errors import Invalid, Reject, RetryLater
from busline.core.message import Delivery
from busline.core.outcome import Rejected, Retried
from busline.runtime.sending import HANDLING

log = logging.getLogger("busline")
QUIET = 10.0  # seconds between two lines of one handler's jobs that ask to come later
MINUTE = 60.0  # seconds between two tracebacks of one handler


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt of a handler that failed. `again`: when it is to run again, in seconds since 1970;
    None where it is dead."""

    handler: str
    id: str
    position: str | None
    attempt: int
    error: BaseException | None
    again: float | None = None

    def __str__(self) -> str:
        return f"'{self.handler}' {self.position or self.id}, attempt {self.attempt}"


Listen = Callable[[Failure], object]


class Telling:
    """One for all workers of a bus. `listen` hears of each attempt that failed."""

    def __init__(self, clock: Clock, listen: Listen | None = None) -> None:
        self._clock, self._listen = clock, listen
        # by handler, when it was said, and how many asked since
        self._later: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, float] = {}  # by handler, when a traceback was last shown

    def retried(self, delivery: Delivery, outcome: Retried) -> None:
        """An attempt that runs again. Of one that is only handed to another worker nothing is
        said."""
        error = outcome.error
        if not outcome.counted and not isinstance(error, (RetryLater, BaseExceptionGroup)):
            return
        moment = self._clock.time() + outcome.after
        when = f"it runs again in {outcome.after:.3g} s, at {stamp(moment)}"
        if delivery.in_lane:
            when += ", and what is behind it in its lane waits"
        if outcome.counted:
            self._say(logging.WARNING, delivery, f"failed: {in_words(error)}; {when}", error)
            self._heard(delivery, error, moment)
        elif (others := self._others(delivery)) is not None:
            more = f", as do {others} others" if others else ""
            self._say(
                logging.INFO, delivery, f"asks to come later{more} ({_asked(error)}); {when}", error
            )

    def dead(self, delivery: Delivery, outcome: Rejected) -> None:
        """One that ended in the dead letters."""
        error = outcome.error
        known = (
            isinstance(error, (Reject, Invalid, ValidationError))
            and described(error)[1] in outcome.reason
        )
        told = "" if error is None or known else f": {in_words(error)}"
        self._say(
            logging.ERROR,
            delivery,
            f"is in the dead letters: {one_line(outcome.reason)}{told}",
            error,
        )
        self._heard(delivery, error, None)

    def _heard(self, delivery: Delivery, error: BaseException | None, again: float | None) -> None:
        if self._listen is not None:
            self._listen(
                Failure(
                    delivery.handler, delivery.id, delivery.position, delivery.attempt, error, again
                )
            )

    def _say(self, level: int, delivery: Delivery, text: str, error: BaseException | None) -> None:
        extra: dict[str, Any] = {}
        if error is not None:
            extra["error_type"], extra["error"] = described(error)
        shown = error if error is not None and self._is_shown(delivery.handler, error) else None
        place = delivery.position or delivery.id
        before = HANDLING.set(delivery)  # it is said of this one, whoever is being handled
        try:
            log.log(
                level,
                "'%s' %s, attempt %d, %s",
                delivery.handler,
                place,
                delivery.attempt,
                text,
                exc_info=shown,
                extra=extra,
            )
        # a filter of the user's own: what becomes of the message does not hang on it
        except Exception:
            traceback.print_exc()
        finally:
            HANDLING.reset(before)

    def _others(self, delivery: Delivery) -> int | None:
        """How many of its handler's have asked for later since it was last said; None where it is
        not said again yet: many jobs may wait, each of which asks again and again. A lane that
        waits is said each time."""
        now, (said, others) = self._clock.ticks(), self._later.get(delivery.handler, (-QUIET, 0))
        if not delivery.in_lane and now - said < QUIET and not log.isEnabledFor(logging.DEBUG):
            self._later[delivery.handler] = said, others + 1
            return None
        self._later[delivery.handler] = now, 0
        return others

    def _is_shown(self, handler: str, error: BaseException) -> bool:
        """With the first failure of a handler, and then once a minute. What was meant to be said
        needs no traceback."""
        if isinstance(error, (Reject, RetryLater, ValidationError)):
            return False
        if log.isEnabledFor(logging.DEBUG):
            return True
        now = self._clock.ticks()
        if now - self._shown.get(handler, -MINUTE) < MINUTE:
            return False
        self._shown[handler] = now
        return True


def _asked(error: BaseException) -> str:
    return one_line(str(error)) if isinstance(error, RetryLater) else in_words(error)
