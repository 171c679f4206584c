"""The outer end of every chain: a return or an exception becomes an Outcome, by the policy."""

import logging
from collections.abc import Awaitable, Callable

from busline.core.chain import Step
from busline.core.clock import Clock, seconds
from busline.core.errors import Invalid, Reject, RetryLater, cut
from busline.core.message import Delivery
from busline.core.outcome import ACKED, SKIPPED, Acked, Outcome, Rejected, Retried
from busline.core.policy import DAY, LANE_LIMIT, Retry
from busline.core.texts import Misfit

log = logging.getLogger("busline")
Bury = Callable[[Delivery, Rejected], Rejected]  # what a dead letter carries with it


def retries(judge: "Judge", call_next: Step, *, skipped: object) -> Callable[[Delivery], Awaitable[Outcome]]:
    """`skipped`: the value that means the function did not run."""

    async def retries(delivery: Delivery) -> Outcome:
        try:
            value = await call_next(delivery)
        except Exception as error:  # what a function raises is its outcome: this is the one place that judges it
            return judge.failed(delivery, error)
        if value is skipped:
            return SKIPPED
        sends = delivery.sends
        return Acked(tuple(sends)) if sends else ACKED

    return retries


class Judge:
    """What becomes of an attempt that failed. `in_lane`: waits hold up the records behind.
    `bury` adds to what ends in the dead letters."""

    def __init__(self, policy: Retry, clock: Clock, *, in_lane: bool, bury: Bury | None = None) -> None:
        self._policy, self._clock, self._in_lane = policy, clock, in_lane
        self._bury = bury
        self._waited: dict[str, float] = {}  # RetryLater in a lane: the seconds so far

    def failed(self, delivery: Delivery, error: BaseException) -> Outcome:
        """Never raises: whoever asks has nobody else to ask."""
        try:
            outcome = self._judge(delivery, error)
        except Exception as trouble:  # a policy that came with the message, or a class of errors with ideas of its own
            outcome = Rejected(cut(f"its retry policy cannot be applied: {trouble!r}"), error)
        return self._bury(delivery, outcome) if self._bury is not None and type(outcome) is Rejected else outcome

    def _judge(self, delivery: Delivery, error: BaseException) -> Outcome:
        if isinstance(error, Reject):
            return Rejected(error.reason, error.__cause__ or error)
        if isinstance(error, Misfit):
            return Rejected(str(error), error)
        if isinstance(error, RetryLater):
            return self._later(delivery, error)
        return self._by_policy(delivery, error)

    def _by_policy(self, delivery: Delivery, error: BaseException) -> Outcome:
        policy = self._policy_of(delivery)
        if not policy.covers(error):
            return Rejected(f"{type(error).__name__} is not retried", error)
        if delivery.attempt >= policy.attempts:
            return Rejected(f"all {policy.attempts} attempts failed" if policy.attempts > 1 else "its only attempt failed", error)
        after = policy.wait(delivery.attempt, self._clock.random())
        if policy.max_age is not None and self._age(delivery) + after > seconds(policy.max_age):
            return Rejected(f"older than {seconds(policy.max_age):g} s", error)
        log.info("%r failed (%s) and runs again in %.1f s", delivery, type(error).__name__, after)
        return Retried(after, error)

    def _later(self, delivery: Delivery, error: RetryLater) -> Outcome:
        if error.delay < 0 or error.delay != error.delay:
            return self._by_policy(delivery, Invalid(f"RetryLater asks for {error.delay} s"))
        if self._in_lane and delivery.in_lane and self._overstays(delivery, error.delay):
            return self._by_policy(delivery, error)
        limit = self._policy_of(delivery).max_age
        if self._age(delivery) + error.delay > (DAY if limit is None else seconds(limit)):
            return Rejected(error.reason or "told to come later for too long", error)
        return Retried(error.delay, error, counted=False)

    def _overstays(self, delivery: Delivery, delay: float) -> bool:
        where = delivery.position or delivery.id
        total = self._waited.pop(where, 0.0) + delay
        if total <= LANE_LIMIT:
            self._waited[where] = total
        if len(self._waited) > 10_000:
            self._waited.clear()
        return total > LANE_LIMIT

    def _policy_of(self, delivery: Delivery) -> Retry:
        options = delivery.message.options
        if options is None or options.retry is None:
            return self._policy
        return Retry(**options.retry, on=self._policy.on, never=self._policy.never)

    def _age(self, delivery: Delivery) -> float:
        return self._clock.time() - delivery.message.since
