"""Where messages go."""

from typing import Literal, NamedTuple

DEAD = ".dead"


class Address(NamedTuple):
    """A topic, which every group sees whole, or a queue, where each job has one taker.

    The rest is what a topic's declaration asks for where the engine makes it: `partitions`, and
    seconds of `retention` (None leaves them to the engine), and `compact`, whether the last message
    of a key stands for it."""

    kind: Literal["topic", "queue"]
    name: str
    partitions: int | None = None
    retention: float | None = None
    compact: bool = False


def redriven(group: str) -> Address:
    """The queue of a group's dead records that run again."""
    return Address("queue", f"~{group}")


def redriven_group(queue: str) -> str | None:
    """The group whose dead records run again in this queue; None for any other queue."""
    return queue[1:] if queue.startswith("~") else None


def dead_topic(topic: str, group: str) -> str:
    """Where a group's dead letters of a topic stand, on an engine that has nothing but topics."""
    return f"{topic}.{group}{DEAD}"
