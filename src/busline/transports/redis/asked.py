"""One settle that waits for its turn."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from busline.core.outcome import Settled
from busline.transports.redis.turn import Answer, Said


def future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


class Stale(Exception):
    """What was asked is no longer true: part of it was done, or is not ours any more."""


@dataclass(slots=True, eq=False)
class Asked:
    """`done`: what the turn that carried it brought."""

    settled: Sequence[Settled]
    said: Said
    size: int
    done: "asyncio.Future[Answer]" = field(default_factory=future)

    def answer(self, found: Answer) -> None:
        if not self.done.done():
            self.done.set_result(found)

    def refuse(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # the caller may be gone
