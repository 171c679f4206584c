"""What one turn says to the server, and what the server answers. No I/O."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from busline.core.causes import told
from busline.core.counts import Whose, write
from busline.core.errors import Invalid, wrong
from busline.core.ids import new_id
from busline.core.message import Delivery
from busline.core.outcome import (
    ACKED,
    Acked,
    Effect,
    Keep,
    Outcome,
    Rejected,
    Released,
    Retried,
    Send,
    Settled,
)
from busline.transports.redis.envelope import clean, name, pack_letter, text
from busline.transports.redis.facts import fact_arguments
from busline.transports.redis.link import pairs
from busline.transports.redis.producer import special


@dataclass(slots=True, eq=False)
class Receipt:
    """Where a delivery is in hand: its field there, and the queue it came from. No two are
    equal."""

    field: bytes
    queue: str


class Said(NamedTuple):
    """What a settle says: who was too late, plain acknowledgements by handler and queue, those that
    keep one fact, the others one by one."""

    late: dict[str, int]
    plain: dict[str, list[bytes]]
    kept: dict[str, list[Any]]
    rich: list[list[Any]]


def said(settled: Sequence[Settled], refused: Sequence[Delivery], now: float) -> Said:
    """`now`: by the worker's clock. Raises Impossible for effects that no server can apply."""
    found = Said({}, {}, {}, [])
    for delivery, outcome in settled:
        try:
            _say(found, delivery, outcome, now)
        # whatever it is, what cannot be written must not keep the others back
        except Exception as error:
            raise Impossible(
                delivery,
                (
                    f"{type(error).__name__}: {error}"
                    if not isinstance(error, Invalid)
                    else str(error)
                ),
            ) from error
    for delivery in refused:
        whose = _whose(delivery.receipt.queue, delivery.handler)
        found.late[whose] = found.late.get(whose, 0) + 1
    return found


def _say(found: Said, delivery: Delivery, outcome: Outcome, now: float) -> None:
    message, receipt = delivery.message, delivery.receipt
    if message.unique is not None or message.remember:
        found.rich.append(_rich(delivery, outcome, now))
    elif outcome is ACKED:
        found.plain.setdefault(_whose(receipt.queue, delivery.handler), []).append(receipt.field)
    elif (fact := _only_fact(outcome)) is not None:
        kept = found.kept.setdefault(_whose(receipt.queue, delivery.handler), [])
        kept += (receipt.field, *fact_arguments(fact.key, fact.value, fact.ttl))
    else:
        found.rich.append(_rich(delivery, outcome, now))


def arguments(parts: Sequence[Said]) -> list[Any]:
    """What several settles say, as the script reads it: four lists, each after its length."""
    found: list[Any] = [sum(len(part.late) for part in parts)]
    for part in parts:
        for handler, count in part.late.items():
            found += (handler, count)
    found.append(sum(len(part.plain) for part in parts))
    for part in parts:
        for handler, fields in part.plain.items():
            found += (handler, len(fields))
            found += fields
    found.append(sum(len(part.kept) for part in parts))
    for part in parts:
        for handler, facts in part.kept.items():
            found += (handler, len(facts) // 4)
            found += facts
    found.append(sum(len(part.rich) for part in parts))
    for part in parts:
        for one in part.rich:
            found += one
    return found


@lru_cache(maxsize=1024)
def _whose(queue: str, handler: str) -> str:
    """As the counts have it: there are few."""
    return write(Whose(queue, handler))


def _only_fact(outcome: Outcome) -> Keep | None:
    """The one thing that an acknowledgement carries, if it is a fact: most results."""
    if (
        type(outcome) is Acked
        and not outcome.skipped
        and len(outcome.effects) == 1
        and isinstance(outcome.effects[0], Keep)
    ):
        return outcome.effects[0] if math.isfinite(outcome.effects[0].ttl) else None
    return None


def _rich(delivery: Delivery, outcome: Outcome, now: float) -> list[Any]:
    field, whose = delivery.receipt.field, _whose(delivery.receipt.queue, delivery.handler)
    if isinstance(outcome, Released):
        return ["released", "", whose, field]
    if isinstance(outcome, Retried):
        counted = int(outcome.counted)
        return ["retried", "retried", whose, field, repr(outcome.after), counted]
    what = "dead" if isinstance(outcome, Rejected) else "skipped" if outcome.skipped else "handled"
    return ["final", what, whose, field, *_final(delivery, outcome, now)]


def _final(delivery: Delivery, outcome: Acked | Rejected, now: float) -> list[Any]:
    message = delivery.message
    letter = _letter(delivery, outcome, now) if isinstance(outcome, Rejected) else b""
    sends, facts = _effects(outcome.effects)
    unique = b"" if message.unique is None else text(message.unique)
    remember = repr(message.remember) if message.remember else ""
    return [text(message.id), unique, remember, letter, new_id() if letter else "", *sends, *facts]


def _letter(delivery: Delivery, outcome: Rejected, now: float) -> bytes:
    error = told(outcome.error)
    notes: dict[str, Any] = {
        "reason": clean(outcome.reason),
        "error_type": error.error_type,
        "error": error.error,
        "died_at": now,
    }
    if (kept := error.details()) is not None:
        notes["details"] = kept.decode()
    return pack_letter(delivery, delivery.receipt.queue, notes)


def _effects(effects: Iterable[Effect]) -> tuple[list[Any], list[Any]]:
    sends: list[Any] = [0]
    facts: list[Any] = [0]
    for effect in effects:
        if isinstance(effect, Send):
            if effect.address.kind != "queue":
                raise Invalid(
                    wrong(
                        effect.address.name,
                        "a queue",
                        "a topic",
                        "Redis carries jobs alone: name an engine for streams.",
                    )
                )
            sends[0] += 1
            sends += [effect.address.name, *special(effect.message, effect.address.name)]
        else:
            facts[0] += 1
            facts += fact_arguments(effect.key, effect.value, effect.ttl)
    return sends, facts


class Impossible(Exception):
    """An outcome carries an effect that can never be applied."""

    def __init__(self, delivery: Delivery, why: str) -> None:
        self.delivery, self.why = delivery, why
        super().__init__(why)

    def instead(self) -> tuple[Delivery, Rejected]:
        """The same delivery, for the dead letters."""
        return self.delivery, Rejected(f"its sends cannot be done: {self.why}")


class Answer(NamedTuple):
    """What a turn brought. `fields`: where each envelope is in hand, if not under its id; `wait`:
    seconds until something is due; `more`: whether more waits; `strangers`: how many jobs of each
    task that the worker does not know it met first."""

    alive: bool
    refused: frozenset[bytes]
    failed: dict[bytes, str]
    envelopes: Sequence[bytes]
    fields: dict[int, bytes]
    wait: float | None
    withheld: bool
    more: bool
    strangers: Mapping[str, int]


def answer(told: list[Any]) -> Answer:
    _, alive, refused, failed, envelopes, renamed, wait, withheld, more, strangers = told
    return Answer(
        bool(alive), frozenset(refused), {field: why.decode() for field,
        why in pairs(failed).items()},
        envelopes, dict(pairs(renamed)), float(wait) if wait else None, bool(withheld), bool(more),
        {name(task): count for task, count in pairs(strangers).items()},
    )  # fmt: skip
