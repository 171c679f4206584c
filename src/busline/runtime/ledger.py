"""What became of a worker's deliveries: counted, and told where it went wrong."""

import logging
from collections.abc import Iterable, Sequence

from busline.core.clock import Clock
from busline.core.counts import Counts, tally
from busline.core.handler import Handler
from busline.core.message import Delivery
from busline.core.outcome import Rejected, Retried, Settled, Settlement
from busline.runtime.telling import Telling
from busline.runtime.unknown import Strangers

log = logging.getLogger("busline")


class Ledger:
    """Of one worker. `counts`: those of all workers, by handler."""

    def __init__(
        self, worker: str, clock: Clock, counts: dict[str, Counts], telling: Telling
    ) -> None:
        self._worker, self._counts, self._telling = worker, counts, telling
        self._strangers = Strangers(worker, clock)
        self._outlived: set[str] = set()  # handlers whose threads were said to go on

    def _of(self, handler: str) -> Counts:
        return self._counts.setdefault(handler, Counts())

    def retried(self, delivery: Delivery, outcome: Retried) -> None:
        """An attempt that runs again."""
        self._telling.retried(delivery, outcome)

    def settled(self, batch: Sequence[Settled], settlement: Settlement) -> None:
        """A group, and what the engine made of it."""
        refused, rejected = settlement
        if rejected:
            dead = {one[0].receipt: one for one in rejected}
            batch = [dead.get(one[0].receipt, one) for one in batch]
        if refused:
            late = {delivery.receipt for delivery in refused}
            batch = [one for one in batch if one[0].receipt not in late]
            self._too_late(refused)
        for name, counts in tally(batch).items():
            self._of(name).add(counts)
        for delivery, outcome in batch:
            if type(outcome) is Rejected:
                self._telling.dead(delivery, outcome)

    def _too_late(self, refused: Sequence[Delivery]) -> None:
        log.warning(
            "%s: %d finished too late, when they were no longer ours; they run again",
            self._worker,
            len(refused),
        )
        for delivery in refused:
            self._of(delivery.handler).refused += 1

    def missed(self, handlers: Iterable[Handler], count: int) -> None:
        """So many records were gone before they were read."""
        for handler in handlers:
            self._of(handler.name).gaps += count

    def unknown(self, task: str, count: int) -> None:
        """So many jobs of a task that this worker does not know wait aside."""
        self._strangers.met(task, count)

    def outlived(self, handler: Handler, threads: int) -> None:
        """A thread goes on after its time: its caller hears of it once."""
        if handler.name not in self._outlived:
            self._outlived.add(handler.name)
            log.warning(
                "'%s' runs in a thread, which cannot be ended: until it returns it holds one of"
                " %d, and its message does not run again here",
                handler.name,
                threads,
            )
