"""Jobs whose task nobody here knows: what becomes of them, and what is said of them."""

import logging
from collections.abc import Collection

from busline.core.clock import Clock
from busline.core.handler import Handler
from busline.core.message import Delivery
from busline.core.outcome import Outcome, Rejected, Retried

log = logging.getLogger("busline")
MINUTE = 60.0
NAMES = 100  # told apart; what comes after them is counted together


def unknown(known: Collection[str], elsewhere: Collection[str]) -> Handler:
    """Stands in for the handler of a job that came although no handler is for it: nobody alive has
    known its task for a quarter of an hour. It is dead, unless the App has the task `elsewhere`."""
    names = ", ".join(sorted(known)) or "none"

    def outcome(delivery: Delivery, error: BaseException | None = None) -> Outcome:
        task = delivery.handler = delivery.message.task
        reason = f"no worker knows the task '{task}' (this one knows {names})"
        if task in elsewhere:
            return Retried(0.0, LookupError(reason), counted=False)
        return Rejected(reason)

    async def run(delivery: Delivery) -> Outcome:
        return outcome(delivery)

    return Handler("", run, outcome)


class Strangers:
    """One line for each task that is unknown, then at most one a minute, with how many jobs came in
    it."""

    def __init__(self, worker: str, clock: Clock) -> None:
        self._worker, self._clock = worker, clock
        self._said: dict[str, float] = {}
        self._met: dict[str, int] = {}

    def met(self, task: str, count: int) -> None:
        named = f"the task {task!r}"
        if named not in self._said and len(self._said) >= NAMES:
            named = "other tasks"
        self._met[named] = self._met.get(named, 0) + count
        now = self._clock.ticks()
        if now - self._said.get(named, -MINUTE) >= MINUTE:
            self._said[named] = now
            log.warning(
                "%s does not know %s: %d job(s) wait for a worker that does",
                self._worker,
                named,
                self._met.pop(named),
            )
