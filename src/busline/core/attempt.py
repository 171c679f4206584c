"""One attempt at a message: its bytes are read, the function is called, and what it gives back is
run to its end."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from busline.core.chain import Step
from busline.core.function import UNFINISHED
from busline.core.handler import Ending, Invoke
from busline.core.message import Delivery
from busline.core.outcome import ACKED, SKIPPED, Acked, Outcome

Attempt: TypeAlias = Callable[[Delivery], Awaitable[Outcome]]
Read: TypeAlias = Callable[[Delivery], object]
"""A delivery's value, or UNMEANT. Raises what becomes of one that cannot be read."""
Failed: TypeAlias = Callable[[Delivery, BaseException], Outcome]


class _Unmeant:
    def __repr__(self) -> str:
        return "UNMEANT"


UNMEANT: Final = _Unmeant()
"""What a chain returns for a message that its function is not meant for."""


def step(read: Read, invoke: Invoke, ending: Ending) -> Step:
    """The inner end of a chain of layers."""
    collect, take = ending.collect, ending.take

    async def validation(delivery: Delivery) -> object:
        value = read(delivery)
        if value is UNMEANT:
            return UNMEANT
        given = await invoke(delivery, value)
        if given is not None and isinstance(given, UNFINISHED):
            return await take(delivery, given)
        if collect is not None:
            collect(delivery, given)
        return given

    return validation


def bare(read: Read, invoke: Invoke, ending: Ending, failed: Failed) -> Attempt:
    """The whole chain where no layer stands between its two ends: both of them in one frame."""
    collect, take = ending.collect, ending.take

    async def attempt(delivery: Delivery) -> Outcome:
        try:
            value = read(delivery)
            if value is UNMEANT:
                return SKIPPED
            given = await invoke(delivery, value)
            if given is not None and isinstance(given, UNFINISHED):
                await take(delivery, given)
            elif collect is not None:
                collect(delivery, given)
        except Exception as error:  # what a function raises is its outcome
            return failed(delivery, error)
        sends = delivery.sends
        return Acked(tuple(sends)) if sends else ACKED

    return attempt
