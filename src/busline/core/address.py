"""Where messages go."""

from typing import Literal, NamedTuple


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
