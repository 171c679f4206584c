"""One live subscription: what finished and what is wanted travel together, one turn at a time."""

import asyncio
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from busline.core.clock import Timer
from busline.core.errors import BuslineError, Unavailable
from busline.core.ids import new_id
from busline.core.message import Delivery, Message
from busline.core.outcome import Rejected
from busline.core.ports import Host, Subscription
from busline.transports.redis.envelope import raw_names, unpack
from busline.transports.redis.link import Link, end, pairs
from busline.transports.redis.turn import Answer, Impossible, Receipt, Said, Settled, Times, answer, arguments, said

if TYPE_CHECKING:
    from busline.transports.redis import RedisTransport

log = logging.getLogger("busline")
WAIT = 2  # seconds for which an idle worker waits for a token, real ones
AGAIN = 0.2  # before it waits again, while the server is away
CONTROL = (b"\0turn", b"\0alone")  # fields of a hand that are no jobs


def future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Asked:
    """One settle that waits for its turn."""

    settled: Sequence[Settled]
    said: Said
    done: "asyncio.Future[Answer]" = field(default_factory=future)


class Stale(Exception):
    """What was asked is no longer true: part of it was done, or is not ours any more."""


class QueueReceiver:
    """A worker as the server knows it: a name, a lease, a hand. A lost lease ends the name, and what was in hand is recalled."""

    def __init__(self, transport: "RedisTransport", subscription: Subscription, host: Host) -> None:
        self.transport, self.host = transport, host
        self.worker = ""  # none yet, or no longer
        self.held: dict[Receipt, Delivery] = {}
        self._queues = [address.name for address in subscription.addresses]
        self._link = Link(transport.place, transport.prefix)
        self._wait_link = Link(transport.place, transport.prefix)
        self._number = 0
        self._spare: list[Delivery] = []
        self._asked: list[Asked] = []
        self._doubt: list[Receipt] = []  # settled in a turn whose answer did not come
        self._applied: set[Receipt] = set()  # of those, the ones that had been done
        self._uncertain = False
        self._limit = 0  # what a waiting `receive` wants
        self._arrived: asyncio.Future[None] | None = None
        self._hungry = True  # there may be something to take
        self._token = False  # a token was taken: somebody must look
        self._closing = False
        self._demand = asyncio.Event()
        self._idle = asyncio.Event()
        self._timer: Timer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<QueueReceiver {', '.join(self._queues)}: {len(self.held)} in hand>"

    # --- the port ------------------------------------------------------------------------------------------

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while not self._spare:
            self._limit, self._arrived = limit, future()
            self._demand.set()
            try:
                await self._arrived
            finally:
                self._limit, self._arrived = 0, None
        taken, self._spare = self._spare[:limit], self._spare[limit:]
        return taken

    async def settle(self, settled: Sequence[Settled]) -> Sequence[Delivery]:
        ours, refused = self._split(settled)
        if not ours and not refused:
            return []
        try:
            found = await asyncio.shield(self._ask_for(ours, refused).done)
        except Impossible as error:
            return await self.settle([error.instead() if one[0] is error.delivery else one for one in settled])
        except Stale:
            return await self.settle(settled)
        late = [one for one, _ in ours if one.receipt.field in found.refused]
        failed = [Impossible(one, why).instead() for one, _ in ours if (why := found.failed.get(one.receipt.field)) is not None]
        return [*refused, *late, *(await self.settle(failed) if failed else ())]

    def _ask_for(self, ours: Sequence[Settled], refused: Sequence[Delivery]) -> Asked:
        if self._closing:
            raise Unavailable(f"the subscription to {', '.join(self._queues)} has ended")
        asked = Asked(ours, said(ours, refused, self._times()))
        self._asked.append(asked)
        self._demand.set()
        return asked

    def _split(self, settled: Sequence[Settled]) -> tuple[list[Settled], list[Delivery]]:
        """What is ours, and what is refused; what a lost turn had done already is neither."""
        ours: list[Settled] = []
        refused: list[Delivery] = []
        for one in settled:
            receipt = one[0].receipt
            if receipt in self.held:
                ours.append(one)
            elif receipt in self._applied:
                self._applied.discard(receipt)
            else:
                refused.append(one[0])
        return ours, refused

    def wake(self) -> None:
        """There may be something to take."""
        self._hungry = True
        self._demand.set()

    def lost(self, worker: str) -> None:
        """The server does not know this worker any more."""
        if worker == self.worker:
            self._lose()

    # --- living --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        await self._join()
        loop = asyncio.get_running_loop()
        name = ", ".join(self._queues)
        self._tasks = [loop.create_task(self._pump(), name=f"busline redis {name}"), loop.create_task(self._listen(), name=f"busline redis wait {name}")]

    async def close(self) -> None:
        """Gives back what is in hand. Raises Unavailable: then its lease does that."""
        self._closing = True
        self._demand.set()
        pump, listening = self._tasks
        await asyncio.wait((pump,))
        await end(listening)
        if self._timer is not None:
            self._timer.cancel()
        self.transport.lease.workers.discard(self.worker)
        try:
            await self._leave()
        finally:
            await self._link.close()
            await self._wait_link.close()

    async def _leave(self) -> None:
        if self.worker:
            await self._link.run("leave", self.worker, *[one.field for one in self.held])
        self.held.clear()

    async def _join(self) -> None:
        worker = new_id()
        await self._link.run("join", worker, self.transport.lease.ms, *self._queues)
        self.worker = worker
        self.transport.lease.workers.add(worker)

    def _lose(self) -> None:
        worker, self.worker = self.worker, ""
        self.transport.lease.workers.discard(worker)
        self.transport.withhold(self, False)
        gone = [one for one in self.held.values() if one not in self._spare]
        self.held.clear()
        self._spare.clear()
        self._doubt.clear()
        self._uncertain = False
        if gone:
            log.warning("this worker stood still for too long and was taken for dead: what it had in hand runs elsewhere")
            self.host.recall(gone)
        self.wake()

    # --- turns ---------------------------------------------------------------------------------------------

    def _wanted(self) -> bool:
        return bool(self._asked or self._token or (self._limit and self._hungry and not self._spare))

    async def _pump(self) -> None:
        while True:
            while not self._wanted() and not (self._closing and not self._asked):
                self._demand.clear()
                await self._demand.wait()
            if self._closing and not self._asked:
                return
            await asyncio.sleep(0)  # whoever else asks in this turn of the loop comes along
            await self._ask()

    async def _ask(self) -> None:
        asked, self._asked = self._asked, []
        try:
            if self._uncertain:
                await self._recover()
            if not self.worker:
                await self._join()
            await self._turn([one for one in asked if self._current(one)])
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._failed(asked, error if isinstance(error, BuslineError) else Unavailable(f"{type(error).__name__}: {error}"))

    def _current(self, asked: Asked) -> bool:
        """Whether it can still be asked as it is."""
        if all(one.receipt in self.held for one, _ in asked.settled):
            return True
        refuse(asked, Stale())
        return False

    def _times(self) -> Times:
        return Times(self.transport.now(), self.transport.skew)

    async def _turn(self, asked: Sequence[Asked]) -> None:
        self._number += 1
        self._token = False
        limit = 0 if self._spare or self._closing else self._limit
        wants, lonely = self.transport.may_take(self, limit)
        head = [self.worker, self._number, repr(self.transport.now()), wants, int(lonely), len(self._queues), *self._queues]
        self._doubt = [one.receipt for each in asked for one, _ in each.settled]
        self._uncertain = True
        worker = self.worker
        told = await self._link.run("turn", *head, *arguments([one.said for one in asked]))
        self._uncertain = False
        self._doubt = []
        self._settled(asked, found := answer(told))
        if self.worker == worker:  # else it was lost meanwhile, and so is what this turn took
            self._answered(asked, found, wants)

    def _settled(self, asked: Sequence[Asked], found: Answer) -> None:
        for each in asked:
            for one, _ in each.settled:
                if one.receipt.field not in found.failed:
                    self.held.pop(one.receipt, None)
            if not each.done.done():
                each.done.set_result(found)

    def _answered(self, asked: Sequence[Asked], found: Answer, wants: int) -> None:
        if asked and not self.held:
            self.transport.emptied()
        self._take(found)
        if wants or found.withheld:
            self.transport.withhold(self, found.withheld)
        if wants:
            self._queues = [*self._queues[1:], *self._queues[:1]]  # the next begins with the next queue
            self._hungry = len(found.envelopes) >= wants
            if len(found.envelopes) < wants:
                self._idle.set()
        if not found.alive:
            self._lose()

    def _take(self, found: Answer) -> None:
        for n, envelope in enumerate(found.envelopes):
            self._hand_out(envelope, found.fields.get(n))
        self._deliver()
        if found.due is not None:
            self._remind(found.due)

    def _hand_out(self, envelope: bytes, field: bytes | None) -> None:
        try:
            message, queue, attempts, id = unpack(envelope)
        except (ValueError, TypeError, struct.error):
            self._put_aside(envelope, field)
            return
        receipt = Receipt(field or id, queue)
        address = queue if message.origin is None else message.origin.rpartition("/")[0]
        self.held[receipt] = delivery = Delivery(message, address, attempts + 1, message.origin, None, receipt)
        self._spare.append(delivery)

    def _put_aside(self, envelope: bytes, field: bytes | None) -> None:
        """An envelope that scripts can move and nobody can read: byte for byte into the dead letters."""
        id, queue = raw_names(envelope)
        receipt = Receipt(field or id, queue)
        self.held[receipt] = delivery = Delivery(Message(id.decode("utf-8", "surrogateescape"), envelope), queue, 1, None, None, receipt)
        self._ask_for([(delivery, Rejected("not an envelope that this version of busline reads"))], ())

    def _deliver(self) -> None:
        if self._spare and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _remind(self, due: float) -> None:
        """A turn when something falls due, whether this worker has room or not: it keeps the time for all."""
        if self._timer is not None:
            self._timer.cancel()
        clock = self.transport.clock
        self._timer = clock.after(max(due - self.transport.now(), 0.0) + 0.0005, self._due)

    def _due(self) -> None:
        self._timer = None
        self._token = True
        self.wake()

    # --- trouble -------------------------------------------------------------------------------------------

    def _failed(self, asked: Sequence[Asked], error: BuslineError) -> None:
        for each in asked:
            refuse(each, error)
        self._token, self._hungry, self._limit = False, True, 0
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_exception(error)

    async def _recover(self) -> None:
        """After an answer that did not come: what is in hand by now. What was settled and is gone, was done."""
        self._number += 1
        worker = self.worker
        told = await self._link.run("recover", worker, self._number)
        if self.worker != worker:
            return
        if told[0] == b"lost":
            self._lose()
            return
        owned = {field: envelope for field, envelope in pairs(told[1]).items() if field not in CONTROL}
        for receipt in self._doubt:
            if receipt.field not in owned or self._other_run(receipt, owned[receipt.field]):
                self.held.pop(receipt, None)
                self._applied.add(receipt)
        known = {receipt.field for receipt in self.held}
        for field_, envelope in owned.items():
            if field_ not in known:
                self._hand_out(envelope, field_)
        self._doubt, self._uncertain = [], False
        self._deliver()

    def _other_run(self, receipt: Receipt, envelope: bytes) -> bool:
        """Whether it was given back by the lost turn, and taken again."""
        delivery = self.held.get(receipt)
        return delivery is not None and unpack(envelope).attempts + 1 != delivery.attempt

    # --- waiting -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Waits for a token whenever a turn brought less than was wanted. A taken token is always followed by a turn."""
        keys = [f"{self.transport.prefix}wake:{queue}" for queue in self._queues]
        while True:
            await self._idle.wait()
            self._idle.clear()
            try:
                self._token = await self._wait_link.ask("BLPOP", *keys, WAIT) is not None or self._token
            except BuslineError:  # the pump hears the same, and says so
                await asyncio.sleep(AGAIN)
            self.wake()


def refuse(asked: Asked, error: Exception) -> None:
    if not asked.done.done():
        asked.done.set_exception(error)
        asked.done.exception()  # the caller may be gone
