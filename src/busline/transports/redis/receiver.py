"""One live subscription: what finished and what is wanted travel together, one turn at a time.

The worker is sure (the server knows it, and we know what it has in hand), unsure (a turn's answer
did not come) or nameless (not yet joined, or its lease is lost).

|          | asked, or news        | answer                 | no answer        | lost      | close |
|----------|-----------------------|------------------------|------------------|-----------|-------|
| sure     | a turn                | taken, handed on; if   | -> unsure; who   | recalled, | a     |
|          |                       | less came than wanted, | waits hears      | then      | last  |
|          |                       | the listener waits     | Unavailable      | -> name-  | turn, |
| unsure   | first what is in hand | -> sure; what was done | stays            |    less   | then  |
|          |                       | is not settled again   |                  |           | leave |
| nameless | first another name    | -> sure                | stays            | -         | -     |

Asked: `settle`, or a `receive` while the worker is hungry: there may be something. News: a token, a
moment that is due, another receiver that empties its hand. Only the pump turns, recovers and joins;
anybody may ask, and the lease may be lost between any two awaits: what a turn brought for another
name than the present one is not taken.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from busline.core.clock import Timer
from busline.core.errors import BuslineError, Unavailable
from busline.core.ids import new_id
from busline.core.message import Delivery
from busline.core.outcome import Rejected, Settled, Settlement, weight
from busline.core.ports import Host, Subscription
from busline.transports.redis.asked import Asked, Stale, future
from busline.transports.redis.envelope import text
from busline.transports.redis.hand import Hand
from busline.transports.redis.link import end, pairs
from busline.transports.redis.listener import Listener
from busline.transports.redis.place import ANSWER
from busline.transports.redis.producer import TOGETHER
from busline.transports.redis.session import Session
from busline.transports.redis.turn import Answer, Impossible, answer, arguments, said

log = logging.getLogger("busline")
T = TypeVar("T")


class QueueReceiver:
    """A worker as the server knows it: a name, a lease, a hand. A lost lease ends the name, and
    what was in hand is recalled.

    It has more fields than others, since each is a column or a row of the table above."""

    def __init__(self, session: Session, subscription: Subscription, host: Host) -> None:
        self.session, self.host, self._subscription = session, host, subscription
        self.worker = ""  # none yet, or no longer
        self.hand = Hand()
        self._queues = [address.name for address in subscription.addresses]
        self._link = session.new_link()
        self._listener = Listener(session, self._queues, self._on_news)
        self._number = 0
        self._asked: list[Asked] = []
        self._uncertain = False  # an answer did not come
        self._limit = 0  # what a waiting `receive` wants
        self._arrived: asyncio.Future[None] | None = None
        self._hungry = True  # there may be something to take
        self._token = False  # a token was taken: somebody must look
        self._closing = False
        self._demand = asyncio.Event()
        self._timer: Timer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<QueueReceiver {', '.join(self._queues)}: {len(self.hand)} in hand>"

    # --- the port ----------------------------------------------------------------------------

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while not self.hand.spare:
            self._limit, self._arrived = limit, future()
            self._demand.set()
            try:
                await self._arrived
            finally:
                self._limit, self._arrived = 0, None
        return self.hand.receive(limit)

    async def settle(self, settled: Sequence[Settled]) -> Settlement:
        refused, rejected = list[Delivery](), list[tuple[Delivery, Rejected]]()
        for part in by_weight(settled):
            refused += await self._settle(part, rejected)
        return Settlement(refused, rejected)

    async def _settle(
        self, settled: Sequence[Settled], rejected: list[tuple[Delivery, Rejected]]
    ) -> Sequence[Delivery]:
        """Returns those no longer ours, and notes those that are dead letters instead."""
        ours, refused = self.hand.split(settled)
        if not ours and not refused:
            return []
        try:
            found = await asyncio.shield(self._ask_for(ours, refused).done)
        except Impossible as error:
            dead = error.instead()
            rejected.append(dead)
            return await self._settle(
                [dead if one[0] is error.delivery else one for one in settled], rejected
            )
        except Stale:
            return await self._settle(settled, rejected)
        late = [one for one, _ in ours if one.receipt.field in found.refused]
        failed = [
            Impossible(one, why).instead()
            for one, _ in ours
            if (why := found.failed.get(one.receipt.field)) is not None
        ]
        rejected += failed
        return [*refused, *late, *(await self._settle(failed, rejected) if failed else ())]

    def _ask_for(self, ours: Sequence[Settled], refused: Sequence[Delivery]) -> Asked:
        if self._closing:
            raise Unavailable(f"the subscription to {', '.join(self._queues)} has ended")
        asked = Asked(
            ours,
            said(ours, refused, self.session.clock.time()),
            sum(weight(*one) for one in ours),
        )
        self._asked.append(asked)
        self._demand.set()
        return asked

    @property
    def empty(self) -> bool:
        """Whether it has nothing in hand."""
        return not self.hand.held

    def wake(self) -> None:
        """There may be something to take."""
        self._hungry = True
        self._demand.set()

    def _on_news(self, token: bool) -> None:
        self._token |= token
        self.wake()

    def on_lost(self, worker: str) -> None:
        """The server does not know this worker any more."""
        if worker == self.worker:
            self._lose()

    # --- living ------------------------------------------------------------------------------

    async def open(self) -> None:
        await self._join()
        loop = asyncio.get_running_loop()
        name = ", ".join(self._queues)
        self._tasks = [
            loop.create_task(self._pump(), name=f"busline redis {name}"),
            loop.create_task(self._listener.run(), name=f"busline redis wait {name}"),
        ]

    async def close(self) -> None:
        """Gives back what is in hand. Raises Unavailable: then its lease does that."""
        self._closing = True
        self._demand.set()
        pump, listening = self._tasks
        await asyncio.wait((pump,), timeout=ANSWER)
        await end(pump)
        await end(listening)
        if self._timer is not None:
            self._timer.cancel()
        self.session.lease.workers.discard(self.worker)
        try:
            await self._leave()
        finally:
            await self._link.close()
            await self._listener.close()

    async def _leave(self) -> None:
        if self.worker:
            await self._link.run("leave", self.worker, *self.hand.fields())

    async def _join(self) -> None:
        worker, lease, tasks = new_id(), self.session.lease, self._subscription.tasks
        knows = () if tasks is None else ("\0", *sorted(tasks))
        await self._link.run(
            "join",
            worker,
            lease.ms,
            lease.connection,
            len(self._queues),
            *self._queues,
            *map(text, knows),
        )
        self.worker = worker
        lease.workers.add(worker)

    def _lose(self) -> None:
        worker, self.worker = self.worker, ""
        self.session.lease.workers.discard(worker)
        self.session.alone.set(self, False)
        self._uncertain = False
        gone = self.hand.lose()
        if gone:
            log.warning(
                "this worker stood still for too long and was taken for dead: what it had in hand"
                " runs elsewhere"
            )
            self.host.recall(gone)
        self.wake()

    # --- turns -------------------------------------------------------------------------------

    def _wanted(self) -> bool:
        takes = (
            self._limit
            and self._hungry
            and not self.hand.spare
            and not self.session.alone.is_held_back(self)
        )
        return bool(self._asked or self._token or takes)

    async def _pump(self) -> None:
        while True:
            while not self._wanted() and not (self._closing and not self._asked):
                self._demand.clear()
                await self._demand.wait()
            if self._closing and not self._asked:
                return
            if not self._token:
                await asyncio.sleep(0)  # whoever else asks in this turn of the loop comes along
            await self._ask()

    async def _ask(self) -> None:
        asked = self._together()
        try:
            if self._uncertain:
                await self._recover()
            if not self.worker:
                await self._join()
            await self._turn([one for one in asked if self._current(one)])
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._failed(
                asked,
                (
                    error
                    if isinstance(error, BuslineError)
                    else Unavailable(f"{type(error).__name__}: {error}")
                ),
            )

    def _together(self) -> list[Asked]:
        """What leaves in one turn: as much as a command should hold."""
        asked = [self._asked.pop(0)] if self._asked else []
        while self._asked and sum(one.size for one in (*asked, self._asked[0])) < TOGETHER:
            asked.append(self._asked.pop(0))
        return asked

    def _current(self, asked: Asked) -> bool:
        """Whether it can still be asked as it is."""
        if self.hand.has(asked.settled):
            return True
        asked.refuse(Stale())
        return False

    async def _turn(self, asked: Sequence[Asked]) -> None:
        self._number += 1
        self._token = False
        limit = 0 if self.hand.spare or self._closing else self._limit
        wants, lonely = self.session.alone.may_take(self, limit)
        bounds = self._subscription.batch_bytes, repr(self._subscription.unknown_limit)
        head = [
            self.worker,
            self._number,
            self.session.told(),
            wants,
            int(lonely),
            *bounds,
            len(self._queues),
            *self._queues,
        ]
        settled = [one for each in asked for one in each.settled]
        self.hand.doubt(settled)
        self._uncertain = True
        worker = self.worker
        told = await self._link.run("turn", *head, *arguments([one.said for one in asked]))
        self._uncertain = False
        found = answer(told)
        self.hand.answered(settled, found)
        for each in asked:
            each.answer(found)
        if self.worker == worker:  # else it was lost meanwhile, and so is what this turn took
            self._answered(asked, found, wants)

    def _answered(self, asked: Sequence[Asked], found: Answer, wants: int) -> None:
        self._take(found)
        if asked and self.empty:
            self.session.alone.on_emptied()
        if wants or found.withheld:
            self.session.alone.set(self, found.withheld)
        if wants:
            # the next begins with the next queue
            self._queues = [*self._queues[1:], *self._queues[:1]]
            self._hungry = (len(found.envelopes) >= wants or found.more) and not found.withheld
            if not self._hungry:
                self._listener.wait(self.worker, found.withheld)
        if not found.alive:
            self._lose()

    def _take(self, found: Answer) -> None:
        self.hand.take_all(found.envelopes, found.fields)
        self._deliver()
        for task, count in found.strangers.items():
            self.host.unknown(task, count)
        if found.wait is not None:
            self._remind(found.wait)

    def _deliver(self) -> None:
        if self.hand.spare and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
        if self.hand.unreadable and not self._closing:
            aside, self.hand.unreadable = self.hand.unreadable, []
            self._ask_for(aside, ())

    def _remind(self, wait: float) -> None:
        """A turn when something falls due, whether this worker has room or not: it keeps the time
        for all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.session.clock.after(wait + 0.0005, self._due)

    def _due(self) -> None:
        self._timer = None
        self._token = True
        self.wake()

    def _failed(self, asked: Sequence[Asked], error: BuslineError) -> None:
        for each in asked:
            each.refuse(error)
        self._token, self._hungry, self._limit = False, True, 0
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_exception(error)

    async def _recover(self) -> None:
        """After an answer that did not come: what is in hand by now. What was settled and is gone,
        was done."""
        self._number += 1
        worker = self.worker
        told = await self._link.run("recover", worker, self._number)
        if self.worker != worker:
            return
        if told[0] == b"lost":
            self._lose()
            return
        lengths: Mapping[bytes, int] = pairs(told[1])
        read = await self._read(self.hand.unsure(lengths), lengths)
        if self.worker != worker:
            return
        self.hand.recover(lengths, read)
        self._uncertain = False
        self.session.alone.set(self, bool(told[2]))
        self._deliver()

    async def _read(
        self, fields: Sequence[bytes], lengths: Mapping[bytes, int]
    ) -> Mapping[bytes, bytes]:
        """What the server has in hand for this worker, a few bytes at a time."""
        key, found = f"{self.session.prefix}hand:{self.worker}", dict[bytes, bytes]()
        for part in by_size(fields, lambda field: lengths[field]):
            told = await self._link.read("HMGET", key, *part)
            found.update(
                (field, one) for field, one in zip(part, told, strict=True) if one is not None
            )
        return found


def by_size(things: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """The same things in their order, as many at a time as one command should hold, and at least
    one."""
    first = total = 0
    for n, one in enumerate(things):
        total += size(one)
        if total > TOGETHER and n > first:
            yield things[first:n]
            first, total = n, size(one)
    if things[first:]:
        yield things[first:]


def by_weight(settled: Sequence[Settled]) -> Iterator[Sequence[Settled]]:
    return by_size(settled, lambda one: weight(*one))
