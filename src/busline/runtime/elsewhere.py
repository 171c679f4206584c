"""What outcomes send to engines other than the one they are settled on: confirmed there before they
are settled."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from busline.core.address import Address
from busline.core.errors import BuslineError, Invalid, Unavailable
from busline.core.outcome import Acked, Outcome, Rejected, Send, Settled
from busline.core.ports import Transport
from busline.runtime.engines import Engines
from busline.runtime.outage import AWAY

Waiting = tuple[Settled, str, BuslineError]  # where it waits, and for what


class Elsewhere:
    """For the outcomes that are settled on `own`."""

    def __init__(self, engines: Engines, own: Transport) -> None:
        self._engines, self._own = engines, own
        self._alone = len(engines.all()) == 1
        self._atomic = own.features.atomic

    def apart(self, outcome: Outcome) -> bool:
        """Whether its effects take a way of their own, which may be a long one."""
        if not self._atomic:
            return bool(outcome.effects) or isinstance(outcome, Rejected)
        return not self._alone and bool(self._sends(outcome))

    async def confirm(
        self, batch: Sequence[Settled]
    ) -> tuple[Sequence[Settled], Sequence[Waiting]]:
        """Sends what they send elsewhere, all of it together. Returns those that are left to
        settle; and without what of them is confirmed, those that wait. One whose sends can never be
        done is left to settle as dead."""
        if self._alone:
            return batch, ()
        sends = [
            (index, one) for index, (_, outcome) in enumerate(batch) for one in self._sends(outcome)
        ]
        if not sends:
            return batch, ()
        confirming = Confirming(batch)
        for address, group in _by_address(sends).items():
            await self._confirm(confirming, address, group)
        return confirming.sorted()

    def _sends(self, outcome: Outcome) -> list[Send]:
        return [
            one
            for one in outcome.effects
            if isinstance(one, Send) and self._engines.of(one.address) is not self._own
        ]

    async def _confirm(
        self, confirming: "Confirming", address: Address, sends: Sequence["Owned"]
    ) -> None:
        try:
            await self._engines.of(address).publish(address, [one.message for _, one in sends])
        except AWAY as error:
            known = error.confirmed if isinstance(error, Unavailable) else ()
            confirming.sent(one for turn, one in enumerate(sends) if turn in known)
            confirming.failed(
                (one for turn, one in enumerate(sends) if turn not in known), address, error
            )
        except Invalid as error:
            owners = dict.fromkeys(owner for owner, _ in sends)
            if len(owners) == 1:
                return confirming.failed(sends, address, error)
            for owner in owners:  # one that is refused is dead, the others are not
                await self._confirm(confirming, address, [one for one in sends if one[0] == owner])
        else:
            confirming.sent(sends)


Owned = tuple[int, Send]  # a send, and which outcome of the batch it belongs to


class Confirming:
    """A batch of outcomes while what they send elsewhere is being confirmed."""

    def __init__(self, batch: Sequence[Settled]) -> None:
        self._batch = batch
        self._sent: dict[int, set[int]] = {}  # by outcome
        self._errors: dict[int, tuple[Address, BuslineError]] = {}

    def sent(self, sends: Iterable[Owned]) -> None:
        for owner, send in sends:
            self._sent.setdefault(owner, set()).add(id(send))

    def failed(self, sends: Iterable[Owned], address: Address, error: BuslineError) -> None:
        for owner, _ in sends:
            # what can never be is final
            if not isinstance(self._errors.get(owner, (None, None))[1], Invalid):
                self._errors[owner] = address, error

    def sorted(self) -> tuple[list[Settled], list[Waiting]]:
        """Those that are left to settle, and those that wait."""
        left: list[Settled] = []
        waiting: list[Waiting] = []
        for owner, (delivery, outcome) in enumerate(self._batch):
            failed, rest = self._errors.get(owner), _without(outcome, self._sent.get(owner))
            if failed is None:
                left.append((delivery, rest))
            elif isinstance(failed[1], Invalid):
                left.append((delivery, Rejected(str(failed[1]), failed[1])))
            else:  # a record with its partition, a job with those that send to the same place
                waiting.append(((delivery, rest), delivery.partition or failed[0].name, failed[1]))
        return left, waiting


def _without(outcome: Outcome, sent: set[int] | None) -> Outcome:
    if not sent:
        return outcome
    assert isinstance(outcome, Acked | Rejected)
    return replace(outcome, effects=tuple(one for one in outcome.effects if id(one) not in sent))


def _by_address(sends: Sequence[Owned]) -> dict[Address, list[Owned]]:
    groups: dict[Address, list[Owned]] = {}
    for owner, send in sends:
        groups.setdefault(send.address, []).append((owner, send))
    return groups
