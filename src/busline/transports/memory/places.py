"""Where messages are: in a topic's log, in a queue's line, in hand, or dead."""

from collections import deque
from dataclasses import dataclass, field

from busline.core.address import Address
from busline.core.message import DeadLetter, Message
from busline.core.partition import partition


@dataclass(slots=True)
class Log:
    """A topic: its partitions' messages, in order."""

    parts: list[list[Message]]
    turn: int = 0

    def place(self, message: Message) -> int:
        """The partition of a message: by its key, else in turn."""
        if message.key is not None:
            return partition(message.key, len(self.parts))
        self.turn += 1
        return self.turn % len(self.parts)


@dataclass(slots=True)
class Line:
    """A queue: who waits, and who waits for a time. `retrying` are the ids of those that failed
    before; `aside`: by their task, those whose task nobody knew who met them, and since when."""

    waiting: deque[str] = field(default_factory=deque[str])
    due: list[tuple[float, int, str]] = field(default_factory=list[tuple[float, int, str]])
    retrying: set[str] = field(default_factory=set[str])
    aside: dict[str, deque[tuple[float, str]]] = field(
        default_factory=dict[str, deque[tuple[float, str]]]
    )

    def again(self) -> int:
        """How many wait for another try."""
        return len(self.retrying) + sum(map(len, self.aside.values()))


@dataclass(slots=True)
class Held:
    """A living job: its message, its queue, the attempts so far, and whoever has it in hand."""

    message: Message
    queue: str
    attempts: int = 0
    owner: object = None


@dataclass(slots=True)
class Letter:
    """A dead letter, with what brings it back."""

    shown: DeadLetter
    message: Message
    address: Address
