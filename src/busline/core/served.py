"""For whom messages come: what tells one App's dead letters and counts from another's on the same
engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from busline.core.address import redriven, redriven_group


class Served(NamedTuple):
    """A queue, or a topic for a group."""

    address: str
    group: str | None = None

    @property
    def queue(self) -> str:
        """The queue of its jobs; of a group, that of its dead records that run again."""
        return self.address if self.group is None else redriven(self.group).name

    @classmethod
    def of(cls, address: str, queue: str) -> "Served":
        """By where its letters go back to."""
        return cls(address, redriven_group(queue))

    def __str__(self) -> str:
        return (
            f"queue '{self.address}'"
            if self.group is None
            else f"group '{self.group}' on '{self.address}'"
        )


@dataclass(frozen=True, slots=True)
class Serves:
    """What an App serves, each with the names of its handlers there.

    `name in` it also holds for what only its former declarations served, as before a function was
    renamed: its default queue, which is called `name`, and groups whose names begin with `name.`.
    """

    name: str
    handlers: Mapping[Served, frozenset[str]]

    def __contains__(self, one: object) -> bool:
        return one in self.handlers or (isinstance(one, Served) and self._former(one.queue))

    def _former(self, queue: str) -> bool:
        return queue == self.name or (redriven_group(queue) or "").startswith(f"{self.name}.")

    def has_queue(self, queue: str) -> bool:
        """Whether a queue, or the one of a group's dead records that run again, is among it."""
        return self._former(queue) or any(queue == one.queue for one in self.handlers)

    def names(self) -> frozenset[str]:
        """Of all its handlers."""
        return frozenset[str]().union(*self.handlers.values())
