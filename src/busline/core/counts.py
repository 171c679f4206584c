"""What became of a handler's deliveries, in numbers, kept once for everyone who shows them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from busline.core.message import Delivery
from busline.core.outcome import ACKED, RELEASED, Acked, Rejected, Retried, Settled


class Whose(NamedTuple):
    """A handler and the queue that it takes from; of a subscriber, `~` and its group. Two Apps may
    have handlers of one name."""

    queue: str
    handler: str


@dataclass(slots=True)
class Counts:
    """handled: the function returned. retried: it failed and runs again. dead: into the dead
    letters. skipped: not meant for it. refused: settled too late, when it was no longer ours. gaps:
    records that were gone when asked for."""

    handled: int = 0
    retried: int = 0
    dead: int = 0
    skipped: int = 0
    refused: int = 0
    gaps: int = 0

    def add(self, other: "Counts") -> None:
        self.handled += other.handled
        self.retried += other.retried
        self.dead += other.dead
        self.skipped += other.skipped
        self.refused += other.refused
        self.gaps += other.gaps


def tally(settled: Iterable[Settled]) -> dict[str, Counts]:
    """The numbers of one settle, per handler."""
    found: dict[str, Counts] = {}
    for delivery, outcome in settled:
        if outcome is RELEASED and not delivery.handler:
            continue  # given back before it began
        counts = found.get(delivery.handler)
        if counts is None:
            counts = found[delivery.handler] = Counts()
        if delivery.attempt > 1 and delivery.in_lane:
            counts.retried += delivery.attempt - 1
        if outcome is ACKED:
            counts.handled += 1
        elif isinstance(outcome, Acked):
            counts.skipped += outcome.skipped
            counts.handled += not outcome.skipped
        elif isinstance(outcome, Retried):
            counts.retried += 1
        elif isinstance(outcome, Rejected):
            counts.dead += 1
    return found


def tally_in(
    queue: str, settled: Iterable[Settled], refused: Iterable[Delivery]
) -> dict[Whose, Counts]:
    """The numbers of one settle, and of what was settled too late, all of it of one queue."""
    found = {Whose(queue, handler): counts for handler, counts in tally(settled).items()}
    for delivery in refused:
        found.setdefault(Whose(queue, delivery.handler), Counts()).refused += 1
    return found


def tally_by(
    queue_of: Callable[[Delivery], str],
    settled: Iterable[Settled],
    refused: Iterable[Delivery],
) -> dict[Whose, Counts]:
    """As `tally_in`, where each may be of another queue."""
    parts: dict[str, tuple[list[Settled], list[Delivery]]] = {}
    for one in settled:
        parts.setdefault(queue_of(one[0]), ([], []))[0].append(one)
    for delivery in refused:
        parts.setdefault(queue_of(delivery), ([], []))[1].append(delivery)
    return {
        whose: counts
        for queue, part in parts.items()
        for whose, counts in tally_in(queue, *part).items()
    }


def write(whose: Whose) -> str:
    """As one text, for engines that keep it under one key."""
    return f"{whose.handler}\n{whose.queue}"


def read(text: str) -> Whose:
    handler, _, queue = text.partition("\n")
    return Whose(queue, handler)
