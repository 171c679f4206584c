"""How a delivery ended: a value, never an exception. And what such an end carries with it.

Every outcome has `effects`, and says whether it is `final`: the delivery does not come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

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

    final: ClassVar = True
    effects: tuple[Effect, ...] = ()
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Retried:
    """Again after `after` seconds. Not `counted`: as the same attempt."""

    final: ClassVar = False
    effects: ClassVar[tuple[Effect, ...]] = ()
    after: float
    error: BaseException
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Rejected:
    """Into the dead letters. `error`: the exception of its last attempt, if there was one."""

    final: ClassVar = True
    reason: str
    error: BaseException | None = None
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """Given back unfinished; the attempt is not counted."""

    final: ClassVar = False
    effects: ClassVar[tuple[Effect, ...]] = ()


Outcome: TypeAlias = Acked | Retried | Rejected | Released
Settled: TypeAlias = tuple[Delivery, Outcome]


class Settlement(NamedTuple):
    """What became of outcomes that were settled. `refused`: those no longer ours, for which nothing
    was done. `rejected`: those that are dead letters instead, for what they carry can never be
    done."""

    refused: Sequence[Delivery] = ()
    rejected: Sequence[tuple[Delivery, Rejected]] = ()


ACKED = Acked()
SKIPPED = Acked(skipped=True)
RELEASED = Released()


def weight(delivery: Delivery, outcome: Outcome) -> int:
    """Bytes of bodies and facts that an engine is to write for it, about."""
    if outcome is ACKED or not outcome.final:
        return 0
    effects = sum(
        len(one.message.body or b"") if isinstance(one, Send) else len(one.value)
        for one in outcome.effects
    )
    return effects + (delivery._size if isinstance(outcome, Rejected) else 0)
