"""Where messages go."""

from typing import Literal, NamedTuple


class Address(NamedTuple):
    """A topic, which every group sees whole, or a queue, where each job has one taker.

    `partitions` is what the topic's declaration asks for; None leaves it to the engine.
    """

    kind: Literal["topic", "queue"]
    name: str
    partitions: int | None = None
