"""The outer end of every chain: a return or an exception becomes an Outcome, by the policy."""

from collections.abc import Callable

from busline.core.attempt import UNMEANT, Attempt
from busline.core.causes import deciding, leaf, leaves
from busline.core.chain import Step
from busline.core.clock import Clock, seconds
from busline.core.errors import Invalid, Reject, RetryLater, cut
from busline.core.message import Delivery
from busline.core.outcome import ACKED, SKIPPED, Acked, Outcome, Rejected, Retried
from busline.core.policy import DAY, LANE_LIMIT, Retry

Bury = Callable[[Delivery, Rejected], Rejected]  # what a dead letter carries with it


def retries(judge: "Judge", call_next: Step) -> Attempt:
    """The outer end of a chain of layers."""

    async def retries(delivery: Delivery) -> Outcome:
        try:
            value = await call_next(delivery)
        except Exception as error:  # what a function raises is its outcome
            return judge.failed(delivery, error)
        if value is UNMEANT:
            return SKIPPED
        sends = delivery.sends
        return Acked(tuple(sends)) if sends else ACKED

    return retries


class Judge:
    """What becomes of an attempt that failed. `in_lane`: waits hold up the records behind.
    `bury` adds to what ends in the dead letters."""

    def __init__(
        self, policy: Retry, clock: Clock, *, in_lane: bool, bury: Bury | None = None
    ) -> None:
        self._policy, self._clock, self._in_lane = policy, clock, in_lane
        self._bury = bury
        self._waited: dict[str, float] = {}  # RetryLater in a lane: the seconds so far

    def failed(self, delivery: Delivery, error: BaseException) -> Outcome:
        """Never raises: whoever asks has nobody else to ask."""
        try:
            outcome = self._judge(delivery, error)
        # a policy that came with the message, or a class of errors with ideas of its own
        except Exception as trouble:
            outcome = Rejected(cut(f"its retry policy cannot be applied: {trouble!r}"), error)
        return (
            self._bury(delivery, outcome)
            if self._bury is not None and type(outcome) is Rejected
            else outcome
        )

    def _judge(self, delivery: Delivery, error: BaseException) -> Outcome:
        whole, decides = leaf(error), deciding(error)
        if isinstance(decides, Reject):
            return Rejected(
                decides.reason, (decides.__cause__ or decides) if decides is whole else whole
            )
        if isinstance(decides, Invalid):
            return Rejected(cut(str(decides)), whole)
        if isinstance(decides, RetryLater):
            return self._later(delivery, decides, whole)
        return self._by_policy(delivery, whole)

    def _by_policy(self, delivery: Delivery, error: BaseException) -> Outcome:
        policy = self._policy_of(delivery)
        final = next((one for one in leaves(error) if not policy.covers(one)), None)
        if final is not None:
            return Rejected(f"{type(final).__name__} is not retried", error)
        if delivery.attempt >= policy.attempts:
            return Rejected(_no_more(policy), error)
        after = policy.wait(delivery.attempt, self._clock.random())
        if policy.max_age is not None and self._age(delivery) + after > seconds(policy.max_age):
            return Rejected(f"older than {seconds(policy.max_age):g} s", error)
        return Retried(after, error)

    def _later(self, delivery: Delivery, later: RetryLater, error: BaseException) -> Outcome:
        if later.delay < 0 or later.delay != later.delay:
            return Rejected(f"RetryLater asks for {later.delay} s", error)
        policy = self._policy_of(delivery)
        if later.counted and delivery.attempt >= policy.attempts:
            return Rejected(_no_more(policy), error)
        if self._in_lane and delivery.in_lane and self._overstays(delivery, later.delay):
            return self._by_policy(delivery, error)
        limit = DAY if policy.max_age is None else seconds(policy.max_age)
        if self._age(delivery) + later.delay > limit:
            return Rejected(later.reason or "told to come later for too long", error)
        return Retried(later.delay, error, counted=later.counted)

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


def _no_more(policy: Retry) -> str:
    return (
        f"all {policy.attempts} attempts failed"
        if policy.attempts > 1
        else "its only attempt failed"
    )
