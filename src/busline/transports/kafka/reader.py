"""One live subscription: hands out what the member's partitions hold, and settles it."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeGuard

from aiokafka import errors as kafka

from busline.core.errors import BuslineError, wrong
from busline.core.message import Delivery
from busline.core.outcome import ACKED, Acked, Outcome, Rejected, Settled, Settlement
from busline.core.ports import Subscription
from busline.transports.kafka.arrival import Arrival
from busline.transports.kafka.carrier import Carrier
from busline.transports.kafka.diagnosis import translated, translating
from busline.transports.kafka.fetched import Fetched
from busline.transports.kafka.member import Member
from busline.transports.kafka.tracker import Tracker

log = logging.getLogger("busline")
LOOK = 1.0  # seconds between looks at the client's health while nothing arrives
PLACED = 0.1  # seconds between looks whether a new group stands everywhere


class Reader:
    """Receives from the partitions in turn, none further ahead than `Subscription.ahead`."""

    def __init__(self, member: Member, subscription: Subscription, carrier: Carrier) -> None:
        self._member, self._subscription, self._carrier = member, subscription, carrier
        self._fetched = Fetched(member.consumer)
        self._turn = 0

    def __repr__(self) -> str:
        return f"<Reader {self._subscription.group}: {len(self._member.trackers)} partitions>"

    async def placed(self) -> None:
        """Returns when the group stands everywhere: what is published from now on will be read,
        whoever dies."""
        while not await self._member.placed():
            self._look()
            await asyncio.sleep(PLACED)

    # --- receiving ---------------------------------------------------------------------------

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while True:
            self._look()
            self._member.changed.clear()
            taken = self._take(limit)
            if taken:
                return taken
            if not self._arrived():
                await self._arrival()

    def _look(self) -> None:
        """Raises what keeps the client from going on."""
        if self._member.broken is not None:
            raise self._member.broken
        group = self._subscription.group or ""
        if self._member.group.ended or self._fetched.ended:
            raise BuslineError(
                wrong(
                    group,
                    "a client that works",
                    "one that has given up",
                    "Start the process again; the log says what ended it.",
                )
            )
        with translating(group):
            self._member.group.check()

    def _arrived(self) -> bool:
        """Whether something was fetched for a partition that has just come to the end of what it
        had."""
        trackers = self._member.trackers
        return any(place in trackers and trackers[place].reads for place in self._fetched.places())

    async def _arrival(self) -> None:
        """Until something is fetched, given back, or has room again."""
        fetched = self._fetched.waiter()
        changed = asyncio.ensure_future(self._member.changed.wait())
        try:
            await asyncio.wait(
                (fetched, changed), timeout=LOOK, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            changed.cancel()
            fetched.cancel()
        if fetched.done() and not fetched.cancelled():
            fetched.exception()  # the next look raises it

    def _take(self, limit: int) -> list[Delivery]:
        self._collect()
        ahead, size, taken = (
            self._subscription.ahead,
            self._subscription.batch_bytes,
            list[Delivery](),
        )
        waiting = [one for one in self._in_turn() if one.waiting]
        ready = [one for one in waiting if one.room(ahead)]
        for one in waiting if len(ready) < len(waiting) else ():
            if one.far:
                self._member.is_far(one)
        for n, tracker in enumerate(ready, 1):
            room = limit - len(taken)
            if not room or size <= 0:
                break
            share = -(-room // (len(ready) - n + 1))  # as much for each that is left
            read = self._read(tracker, min(share, tracker.room(ahead)), size, alone=not taken)
            size -= sum([one._size for one in read])
            taken += read
        return taken

    def _in_turn(self) -> list[Tracker]:
        """The partitions, each time another one first."""
        trackers = list(self._member.trackers.values())
        self._turn += 1
        turn = self._turn % max(len(trackers), 1)
        return [*trackers[turn:], *trackers[:turn]]

    def _collect(self) -> None:
        """Takes what was fetched for partitions that have nothing left."""
        left = self._subscription.batch_bytes - sum(
            self._fetched.size(one.source) for one in self._ahead()
        )
        for place in self._fetched.places():
            tracker = self._member.trackers.get(place)
            if tracker is not None and tracker.reads and left > 0:
                result = self._fetched.take(place)
                if isinstance(result, Exception):
                    tracker.failure = result
                    self._failed(tracker, result)
                else:
                    tracker.source = result
                    left -= self._fetched.size(result)

    def _ahead(self) -> list[Tracker]:
        """Those of which something is here that will be read soon: one that stands still keeps no
        other from reading."""
        return [
            one
            for one in self._member.trackers.values()
            if one.source is not None and one.failure is None and one.room(self._subscription.ahead)
        ]

    def _read(self, tracker: Tracker, limit: int, size: int, *, alone: bool) -> list[Arrival]:
        before = tracker.low
        taken = tracker.take(limit, size, alone=alone)
        if tracker.failure is not None:
            self._failed(tracker, tracker.failure)
        if tracker.low != before:
            self._member.committer.moved()  # nothing but what is not for readers
        return taken

    def _failed(self, tracker: Tracker, error: Exception) -> None:
        if isinstance(error, kafka.TopicAuthorizationFailedError):
            raise translated(error, tracker.place.topic) from error
        if isinstance(error, kafka.OffsetOutOfRangeError):
            self._member.find(tracker)
        elif isinstance(error, UnicodeDecodeError):
            self._member.read_leniently(tracker)
        else:
            self._member.stop(tracker, error)

    # --- settling ----------------------------------------------------------------------------

    async def settle(self, settled: Sequence[Settled]) -> Settlement:
        rich = [
            (delivery, outcome)
            for delivery, outcome in settled
            if outcome is not ACKED and _rich(outcome) and delivery.receipt[0].holds(delivery)
        ]
        if rich and (late := await self._carrier.carry(rich)):
            for delivery, _ in late:
                delivery.receipt[0].stop(delivery)  # nothing passes it
            raise late[0].error
        return self._finish(settled)

    def _finish(self, settled: Sequence[Settled]) -> Settlement:
        refused, finished, back = (
            list[Delivery](),
            defaultdict[Tracker, list[int]](list),
            defaultdict[Tracker, list[Arrival]](list),
        )
        for delivery, outcome in settled:
            tracker, offset = delivery.receipt
            held = tracker.held.pop(offset, None)  # popped: it may be here twice
            if held is None:
                refused.append(delivery)
            elif outcome.final:
                finished[tracker].append(offset)
            else:
                back[tracker].append(held)
        rejected = self._carrier.forget(settled)
        for tracker, offsets in finished.items():
            tracker.finish(offsets)
        for tracker, deliveries in back.items():
            tracker.give_back(deliveries)
        self._moved()
        return Settlement(refused, rejected)

    def _moved(self) -> None:
        self._member.committer.moved()
        self._member.settled.set()
        self._member.changed.set()

    async def leave(self) -> None:
        await self._carrier.stop()
        await self._member.leave()


def _rich(outcome: Outcome) -> TypeGuard[Acked | Rejected]:
    """Whether something is to be written with it."""
    return isinstance(outcome, Rejected) or (isinstance(outcome, Acked) and bool(outcome.effects))
