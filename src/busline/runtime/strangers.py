"""What is said of jobs whose task nobody here knows: not a line for each."""

import logging

from busline.core.clock import Clock

log = logging.getLogger("busline")
MINUTE = 60.0
NAMES = 100  # told apart; what comes after them is counted together


class Strangers:
    """One line for each task, then at most one a minute, with how many jobs came in it."""

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
