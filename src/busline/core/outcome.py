"""How a delivery ended: a value, never an exception. And what such an end carries with it."""

from dataclasses import dataclass
from typing import TypeAlias

from busline.core.address import Address
from busline.core.message import Delivery, Message


@dataclass(frozen=True, slots=True)
class Send:
    """Publish `message` to `address`, together with the outcome."""

    address: Address
    message: Message


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep `value` under `key` for `ttl` seconds, together with the outcome."""

    key: str
    value: bytes
    ttl: float


Effect: TypeAlias = Send | Keep


@dataclass(frozen=True, slots=True)
class Acked:
    """Done. `skipped`: the function was not meant for it and did not run."""

    effects: tuple[Effect, ...] = ()
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Retried:
    """Again after `after` seconds. Not `counted`: as the same attempt."""

    after: float
    error: BaseException
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Rejected:
    """Into the dead letters. `error`: the exception of its last attempt, if there was one."""

    reason: str
    error: BaseException | None = None
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """Given back unfinished; the attempt is not counted."""


Outcome: TypeAlias = Acked | Retried | Rejected | Released

ACKED = Acked()
SKIPPED = Acked(skipped=True)
RELEASED = Released()


def weight(delivery: Delivery, outcome: Outcome) -> int:
    """Bytes of bodies and facts that an engine is to write for it, about."""
    if outcome is ACKED or not isinstance(outcome, Acked | Rejected):
        return 0
    effects = sum(
        len(one.message.body or b"") if isinstance(one, Send) else len(one.value)
        for one in outcome.effects
    )
    return effects + (len(delivery.message.body or b"") if isinstance(outcome, Rejected) else 0)
