"""What outcomes carry, written before their records are finished: once, however often they are
settled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from busline.core.address import Address
from busline.core.errors import BuslineError, Invalid, Unavailable, wrong
from busline.core.message import Delivery, Message
from busline.core.outcome import Acked, Rejected, Send, Settled
from busline.transports.kafka.letters import Letters

log = logging.getLogger("busline")
SOON = 10.0  # seconds a settle waits: what takes longer is asked for again, and goes on meanwhile
Publish: TypeAlias = Callable[[Address, Sequence[Message]], Awaitable[None]]


class Late(NamedTuple):
    """An outcome that carries what is not confirmed, and why it is not."""

    delivery: Delivery
    error: BuslineError


class Carrier:
    """Of one subscription. A writing that has begun goes on until it is confirmed, fails or is
    forgotten: to begin it again would write twice."""

    def __init__(self, group: str, letters: Letters, publish: Publish) -> None:
        self._group, self._letters, self._publish = group, letters, publish
        # by receipt: under way, or confirmed and not finished yet; what it became if not possible
        self._writing: dict[object, asyncio.Task[Rejected | None]] = {}

    async def carry(self, settled: Sequence[tuple[Delivery, Acked | Rejected]]) -> list[Late]:
        """Returns those that are not confirmed soon."""
        for delivery, outcome in settled:
            if delivery.receipt not in self._writing:
                self._writing[delivery.receipt] = asyncio.get_running_loop().create_task(
                    self._write(delivery, outcome),
                    name=f"busline kafka write for {delivery.position}",
                )
        await asyncio.wait(
            [self._writing[delivery.receipt] for delivery, _ in settled], timeout=SOON
        )
        return [late for delivery, _ in settled if (late := self._late(delivery)) is not None]

    def _late(self, delivery: Delivery) -> Late | None:
        task = self._writing.get(delivery.receipt)
        if task is None:
            return None  # it was settled twice in one call
        if not task.done():
            remedy = "Its partition waits; the others go on."
            name = f"{delivery.position}"
            return Late(
                delivery,
                Unavailable(
                    wrong(
                        name,
                        "what it sends, or its dead letter, to be confirmed",
                        f"nothing for {SOON:g} s",
                        remedy,
                    )
                ),
            )
        error = task.exception()
        if error is None:
            return None
        del self._writing[delivery.receipt]  # the next time it begins anew
        if not isinstance(error, BuslineError):
            raise error
        return Late(delivery, error)

    async def _write(self, delivery: Delivery, outcome: Acked | Rejected) -> Rejected | None:
        rejected: Rejected | None = None
        try:
            for address, messages in _grouped(outcome.effects):
                await self._publish(address, messages)
        except Invalid as error:
            outcome = rejected = Rejected(f"what it sends cannot be sent: {error}", error)
            log.error("%r is put into the dead letters: %s", delivery, outcome.reason)
        if isinstance(outcome, Rejected):
            await self._letters.write(self._group, delivery, outcome)
        return rejected

    def forget(self, settled: Sequence[Settled]) -> list[tuple[Delivery, Rejected]]:
        """They are finished, or not ours any more. Returns those that became dead letters."""
        rejected: list[tuple[Delivery, Rejected]] = []
        for delivery, _ in settled if self._writing else ():
            task = self._writing.pop(delivery.receipt, None)
            if task is None or task.cancel() or task.cancelled() or task.exception():
                continue
            if (dead := task.result()) is not None:
                rejected.append((delivery, dead))
        return rejected

    async def stop(self) -> None:
        """What is not confirmed is left: whoever reads the record next writes it."""
        tasks = list(self._writing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _grouped(effects: Sequence[Any]) -> list[tuple[Address, list[Message]]]:
    groups: dict[Address, list[Message]] = {}
    for effect in effects:
        if not isinstance(effect, Send):
            raise Invalid(
                wrong(
                    effect.key,
                    "an engine that keeps facts",
                    "Kafka",
                    "Name a jobs engine: BUSLINE_JOBS.",
                )
            )
        groups.setdefault(effect.address, []).append(effect.message)
    return list(groups.items())
