"""A job that ended two workers runs alone: nothing else is in hand in its process meanwhile.

Nobody is alone, or one receiver is: then no other takes any. That one has such a job in hand, or
knows that one waits and takes it when all hands are empty. Nothing here awaits."""

from typing import Protocol


class Taker(Protocol):
    """A receiver, as the others see it."""

    @property
    def empty(self) -> bool:
        """Whether it has nothing in hand."""
        ...

    def wake(self) -> None:
        """There may be something to take."""
        ...


class Alone:
    """Among the receivers of one process. The server keeps the other half: it hands out such a job
    to a hand that is empty, and nothing else to it."""

    def __init__(self) -> None:
        self._takers: list[Taker] = []
        self._one: Taker | None = None  # the receiver that is alone, or waits for it

    def __repr__(self) -> str:
        return f"<Alone {self._one}, of {len(self._takers)}>"

    def add(self, taker: Taker) -> None:
        self._takers.append(taker)

    def remove(self, taker: Taker) -> None:
        self._takers.remove(taker)
        self.set(taker, False)

    def may_take(self, taker: Taker, limit: int) -> tuple[int, bool]:
        """How much a receiver may ask for, and whether a job that runs alone may be among it."""
        if self.is_held_back(taker):
            return 0, False
        return limit, all(one.empty for one in self._takers if one is not taker)

    def is_held_back(self, taker: Taker) -> bool:
        return self._one is not None and self._one is not taker

    def set(self, taker: Taker, yes: bool) -> None:
        """A receiver has such a job or knows of one; or (False) it does no longer."""
        if yes:
            self._one = taker
        elif self._one is taker:
            self._one = None
            for one in self._takers:
                one.wake()

    def on_emptied(self) -> None:
        """A receiver has nothing in hand any more."""
        if self._one is not None:
            self._one.wake()
