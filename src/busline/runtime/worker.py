"""The loop that receives, handles and settles for one subscription:

    receive -> Held, in lanes -> Running -> outcome -> parked, or Settling -> room for more

States: receiving, until `stop` is set; then what has not begun is given back, and what runs is
drained and cut. All of it happens in one loop; between two awaits each delivery in hand is in one
place: its lane, a run, the parked, or the settling.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from busline.core.clock import Clock
from busline.core.counts import Counts
from busline.core.handler import Handler
from busline.core.message import Delivery
from busline.core.outcome import ACKED, RELEASED, SKIPPED, Outcome, Retried, Settled, Settlement
from busline.core.ports import Receiver
from busline.runtime.elsewhere import Elsewhere
from busline.runtime.held import Held
from busline.runtime.ledger import Ledger
from busline.runtime.outage import AWAY, Outage
from busline.runtime.running import Running
from busline.runtime.settling import Settling
from busline.runtime.telling import Telling
from busline.runtime.unknown import unknown
from busline.runtime.work import Work

log = logging.getLogger("busline")
BACK = 12.0  # seconds: longer than any engine needs to say that it is away


class Worker:
    """Receives what there is room for, runs each delivery in its lane, settles what finished in
    groups. `away`: what is waited for, while an engine is away; `hurry`: set, what runs is cut
    now.

    Its own story is `run`; half of its methods are what three others may ask of it: its receiver,
    its runs, and whoever looks at it."""

    def __init__(
        self,
        work: Work,
        clock: Clock,
        elsewhere: Elsewhere,
        counts: dict[str, Counts],
        telling: Telling | None = None,
    ) -> None:
        self.work, self.clock = work, clock
        features = work.transport.features
        self._durable = features.durable
        # what is settled by a note; these very objects, for an equal one may have carried something
        self._noted = {id(ACKED), id(SKIPPED)} if features.notes else set[int]()
        self.away: dict[str, str] = {}
        self._held = Held(work, clock, self._start_soon)
        strange = unknown(work.handlers, work.elsewhere)
        self._running = Running(work, strange, self._held.lanes, clock, self)
        self._settling = Settling(
            work, elsewhere, clock, self.away, self._settled, self._fail, self._on_leaving
        )
        self._ledger = Ledger(work.name, clock, counts, telling or Telling(clock))
        self._broken: BaseException | None = None  # what ended the settling for good
        self._changed, self.ready = asyncio.Event(), asyncio.Event()
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()

    def __repr__(self) -> str:
        return f"<Worker {self.work.name}: {self._running}, {self._held}>"

    # --- asked by others ---------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether anything is to be done now; a retry that waits for its time is not."""
        return self._running.busy or self._settling.busy

    @property
    def held(self) -> int:
        """How many it has received and not settled."""
        return self._held.count

    @property
    def idle(self) -> bool:
        return self._held.count == 0

    def running(self) -> list[str]:
        """The names of the functions that run now; also asked by another thread."""
        return [delivery.handler for delivery in self._running.deliveries()]

    def oldest(self, now: float) -> float:
        """Seconds since the oldest delivery in hand and unfinished was published; 0 if there is
        none."""
        unfinished = (*self._held.unstarted(), *self._running.deliveries())
        return max((now - one.message.at for one in unfinished), default=0.0)

    # --- living ------------------------------------------------------------------------------

    async def run(self, drain: float, cancel: float) -> None:
        """Until `stop` is set: then nothing new starts, what runs has `drain` seconds to end, and
        is cancelled. Raises what ended the receiving for good."""
        async with self.work.transport.subscribe(self.work.subscription, self) as receiver:
            self._settling.receiver = receiver
            fetching = asyncio.get_running_loop().create_task(
                self._fetch(receiver), name=f"busline fetch {self.work.name}"
            )
            self.ready.set()
            await _first(fetching, self.stop)
            await self._shut_down(fetching, drain, cancel)
        if self._broken is not None:
            raise self._broken
        if not fetching.cancelled():
            fetching.result()

    async def _fetch(self, receiver: Receiver) -> None:
        outage = Outage(self.work.name, self.away, "it receives again")
        while True:
            room = await self._room()
            try:
                deliveries = await self._received(receiver, room, outage)
            except AWAY as error:
                await self.clock.sleep(outage.again(error))
                continue
            outage.over()
            self._held.add(deliveries)
            self._running.start()

    async def _room(self) -> int:
        await asyncio.sleep(0)  # whoever else finishes in this turn of the loop makes room as well
        while not (room := self._held.room()):
            self._changed.clear()
            await self._changed.wait()
        return room

    async def _received(self, receiver: Receiver, room: int, outage: Outage) -> Sequence[Delivery]:
        """What comes. An engine that was away is back when it lets us wait, even if nothing
        comes."""
        if not outage.tries:
            return await receiver.receive(room)
        waited = self.clock.after(BACK, outage.over)
        try:
            return await receiver.receive(room)
        finally:
            waited.cancel()

    # --- what runs ---------------------------------------------------------------------------

    def begun(self) -> None:
        """What runs has left its lane: there may be room."""
        self._changed.set()

    def ended(self, delivery: Delivery, outcome: Outcome | None) -> None:
        """A function ended so; None: its delivery was lost, nothing it says counts.

        On an engine that outlives us its lane opens when it is settled, so that a kill repeats only
        what was running; but for what is settled by a note."""
        if outcome is None:
            self._held.drop((delivery,))
            self._held.lanes.leave(delivery)
            return
        if type(outcome) is Retried:
            self._ledger.retried(delivery, outcome)
            if delivery.in_lane and not self.stop.is_set():
                return self._held.parked.retry(delivery, outcome)
        if not self._durable or id(outcome) in self._noted:
            self._held.lanes.leave(delivery)
        self._settling.add((delivery, outcome))

    def _settled(self, batch: Sequence[Settled], settlement: Settlement) -> None:
        self._free(batch)
        self._ledger.settled(batch, settlement)

    def _free(self, batch: Sequence[Settled]) -> None:
        """There is room for others, and in the lanes for those behind."""
        self._held.drop([delivery for delivery, _ in batch])
        if self._durable and not self.stop.is_set():
            for delivery, outcome in batch:
                # given back before it began, it had no place in its lane
                if outcome is not RELEASED and id(outcome) not in self._noted:
                    self._held.lanes.leave(delivery)
            self._start_soon()
        self._changed.set()

    def _on_leaving(self, count: int) -> None:
        """They are being settled, or (less than 0) no longer: what takes their room is asked for at
        the same time, so that both can travel together."""
        self._held.leaving += count
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        self._broken = error
        self.stop.set()

    def _start_soon(self) -> None:
        if not self.stop.is_set():
            self._running.start_soon()

    # --- for its runs ------------------------------------------------------------------------

    def waits_for(self, thread: Future[None], delivery: Delivery) -> None:
        """It begins when the thread of its earlier run ends."""
        self._held.parked.behind(thread, delivery)

    def outlived(self, handler: Handler) -> None:
        """A thread goes on after its time."""
        self._ledger.outlived(handler, self.work.threads)

    # --- for its receiver --------------------------------------------------------------------

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        """These are no longer ours: whatever runs is cut, nothing it says will count."""
        gone = {delivery.receipt for delivery in deliveries}
        self._held.drop(self._held.take(gone))
        self._free(self._settling.forget(gone))
        self._running.recall(gone)
        self._start_soon()

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """These are wanted back: what has not begun is settled as Released, what runs may end."""
        self._give_back(self._held.take({delivery.receipt for delivery in deliveries}))
        self._start_soon()

    def missed(self, count: int) -> None:
        """So many records were gone before they were read."""
        self._ledger.missed(self.work.handlers.values(), count)

    def waits(self, place: str, why: str | None) -> None:
        """A part of the engine stands still, and why; None: it goes on."""
        self.away.pop(place, None)
        if why is not None:
            self.away[place] = why

    def unknown(self, task: str, count: int) -> None:
        """So many jobs of a task that this worker does not know wait aside."""
        self._ledger.unknown(task, count)

    # --- stopping ----------------------------------------------------------------------------

    async def _shut_down(self, fetching: asyncio.Task[None], drain: float, cancel: float) -> None:
        self.stop.set()
        fetching.cancel()
        await asyncio.wait((fetching,))
        self._give_back(self._held.take(None))
        await self._until_settled(drain, self.hurry)
        self._running.stop()
        await self._until_settled(cancel, asyncio.Event())
        await self._settling.stop()  # its engine is away for too long: what is unsettled runs again
        for name in self.running():
            log.warning(
                "'%s' did not end in time: its delivery is handed back and runs again", name
            )

    def _give_back(self, unstarted: Sequence[Delivery]) -> None:
        for delivery in unstarted:
            self._settling.add((delivery, RELEASED))

    async def _until_settled(self, limit: float, hurry: asyncio.Event) -> None:
        hurried = asyncio.get_running_loop().create_task(hurry.wait())
        try:
            async with asyncio.timeout(limit):
                while (under_way := self._under_way()) and not hurried.done():
                    await asyncio.wait((hurried, *under_way), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        hurried.cancel()

    def _under_way(self) -> list[asyncio.Task[Any]]:
        return [*self._running.tasks(), *self._settling.tasks]


async def _first(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Returns when the task is over or the event set."""
    waiting = asyncio.get_running_loop().create_task(event.wait())
    await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
