"""The loop that receives, handles and settles for one subscription."""

import asyncio
import logging
from collections.abc import Mapping, Sequence, Set
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import ValidationError

from busline.core.clock import Clock, Timer
from busline.core.counts import Counts, tally
from busline.core.errors import BuslineError, ConfigError, Reject, Unavailable
from busline.core.handler import Handler
from busline.core.lanes import Lanes
from busline.core.message import LOST, SHUTDOWN, TIMEOUT, Delivery
from busline.core.outcome import RELEASED, Outcome, Rejected, Retried
from busline.core.ports import UNKNOWN_LIMIT, Receiver, Subscription, Transport
from busline.runtime.sending import HANDLING
from busline.runtime.strangers import Strangers

log = logging.getLogger("busline")
Settled = tuple[Delivery, Outcome]
AWAY = (Unavailable, ConfigError)  # a server that refuses a login it took before is away, too
BACK = 12.0  # seconds: longer than any engine needs to say that it is away
UNLIMITED = 1000  # as many at once as there are partitions, however many that turn out to be
GROUP = 100  # settled together: more brings no more speed


class Foreign(Protocol):
    """Sends, before the settling, what an outcome sends to other engines. Returns what is left to settle."""

    async def __call__(self, batch: Sequence[Settled], own: Transport, /) -> list[Settled]: ...


@dataclass(slots=True)
class Running:
    task: asyncio.Task[None]
    delivery: Delivery
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is to do. `handlers`: by the task's name; a stream's only one under the empty name."""

    name: str
    transport: Transport
    subscription: Subscription
    handlers: Mapping[str, Handler]
    concurrency: int
    buffer: int
    elsewhere: frozenset[str] = frozenset()  # tasks that the App has, and that another process runs
    asked: int | None = None  # the concurrency that the declaration asks for

    @property
    def at_once(self) -> str:
        """How many run at once, in words."""
        return "one for each partition" if self.concurrency == UNLIMITED else f"{self.concurrency} at once"


class Worker:
    """Receives what there is room for, runs each delivery in its lane, settles what finished in groups."""

    def __init__(self, work: Work, clock: Clock, foreign: Foreign, counts: dict[str, Counts]) -> None:
        self.work = work
        self.clock = clock
        self._foreign = foreign
        self._counts = counts
        self._lanes = Lanes(work.concurrency)
        self._durable = work.transport.features.durable
        self._running: dict[object, Running] = {}
        self._held = 0  # received and not settled
        self._parked: dict[object, tuple[Timer, Delivery]] = {}  # in-lane retries that wait
        self._finished: list[Settled] = []
        self._settling: asyncio.Task[None] | None = None
        self._settles = True
        self._broken: BaseException | None = None  # what ended the settling for good
        self._starting = False
        self._stopping = False
        self._timer: Timer | None = None
        self._next_deadline = float("inf")
        self._strangers = Strangers(work.name, clock)
        self._receiver: Receiver | None = None
        self.away: dict[str, str] = {}  # what is waited for, while an engine is away
        self._changed = asyncio.Event()
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()  # set: what runs is cancelled now

    def __repr__(self) -> str:
        return f"<Worker {self.work.name}: {len(self._running)} running, {self._held} held>"

    @property
    def busy(self) -> bool:
        """Whether anything is to be done now; a retry that waits for its time is not."""
        return bool(self._running or self._finished or self._settling is not None or self._starting or self._lanes.ready)

    @property
    def idle(self) -> bool:
        return self._held == 0

    def running(self) -> list[str]:
        """The names of the functions that run now."""
        return [running.delivery.handler for running in list(self._running.values())]  # also asked by another thread

    def oldest(self, now: float) -> float:
        """Seconds since the oldest delivery in hand and unfinished was published; 0 if there is none."""
        parked = (delivery for _, delivery in self._parked.values())
        running = (one.delivery for one in self._running.values())
        return max((now - one.message.at for one in (*self._lanes.unstarted(), *parked, *running)), default=0.0)

    async def run(self, drain: float, cancel: float) -> None:
        """Until `stop` is set: then nothing new starts, what runs has `drain` seconds to end, and is cancelled.
        Raises what ended the receiving for good."""
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        subscription = replace(self.work.subscription, unknown_limit=UNKNOWN_LIMIT)
        async with self.work.transport.subscribe(subscription, self) as self._receiver:
            fetching = self._loop.create_task(self._fetch(self._receiver), name=f"busline fetch {self.work.name}")
            self.ready.set()
            await self._stopped(fetching)
            await self._shut_down(fetching, drain, cancel)
        if self._broken is not None:
            raise self._broken
        if not fetching.cancelled():
            fetching.result()

    async def _stopped(self, fetching: asyncio.Task[None]) -> None:
        stop = self._loop.create_task(self.stop.wait())
        await asyncio.wait((stop, fetching), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()

    # --- receiving -----------------------------------------------------------------------------------------

    async def _fetch(self, receiver: Receiver) -> None:
        trouble = Trouble(self.work.name, self.away)
        while True:
            room = await self._room()
            try:
                deliveries = await self._received(receiver, room, trouble)
            except AWAY as error:
                await self.clock.sleep(trouble.again(error))
                continue
            trouble.over()
            self._held += len(deliveries)
            self._lanes.add(deliveries)
            self._start()

    async def _received(self, receiver: Receiver, room: int, trouble: "Trouble") -> Sequence[Delivery]:
        """What comes. An engine that was away is back when it lets us wait, even if nothing comes."""
        if not trouble.tries:
            return await receiver.receive(room)
        waited = self.clock.after(BACK, trouble.over)
        try:
            return await receiver.receive(room)
        finally:
            waited.cancel()

    async def _room(self) -> int:
        await asyncio.sleep(0)  # whoever else finishes in this turn of the loop makes room as well
        while not self._wants_more():
            self._changed.clear()
            await self._changed.wait()
        return self.work.buffer - self._held

    def _wants_more(self) -> bool:
        """Room for a quarter of the buffer, or for anything once less waits here than runs."""
        room, running = self.work.buffer - self._held, self._lanes.running
        return room >= max(self.work.buffer // 4, 1) or (room > 0 and self._held - running <= running)

    # --- handling ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._starting = False
        if self._stopping:
            return
        handlers, running, base = self.work.handlers, self._running, self._context
        create, ticks = self._loop.create_task, self.clock.ticks
        for delivery in self._lanes.take():
            handler = handlers.get(delivery.message.task)
            if handler is None:
                self._unknown(delivery)
                continue
            delivery.handler = handler.name
            task = create(self._handle(delivery, handler), name=handler.name, context=base.copy())
            timeout = handler.timeout
            if delivery.message.options is not None:
                timeout = delivery.message.options.timeout or timeout
            deadline = None if timeout is None else ticks() + timeout
            running[delivery.receipt] = Running(task, delivery, deadline)
            if deadline is not None and deadline < self._next_deadline:
                self._watch(deadline)

    async def _handle(self, delivery: Delivery, handler: Handler) -> None:
        HANDLING.set(delivery)
        delivery.sends = []
        try:
            outcome: Outcome | None = await handler.run(delivery)
        except BaseException as error:  # cancellations and exits: whatever a function raises, its worker lives
            outcome = self._cut_short(delivery, handler, error)
        if delivery.cut_off and isinstance(outcome, Retried | Rejected):
            outcome = self._cut_short(delivery, handler, asyncio.CancelledError())  # it made another error of it: no failed attempt all the same
        delivery.sends = None
        del self._running[delivery.receipt]
        if outcome is not None:
            self._finish(delivery, outcome)

    def _cut_short(self, delivery: Delivery, handler: Handler, error: BaseException) -> Outcome | None:
        if delivery.cut == LOST:
            self._held -= 1
            self._lanes.leave(delivery)
            return None
        if delivery.cut == SHUTDOWN:
            return RELEASED
        if delivery.cut == TIMEOUT:
            return handler.fail(delivery, TimeoutError(f"ran longer than its {self._limit(delivery, handler):g} s"))
        return handler.fail(delivery, error)

    @staticmethod
    def _limit(delivery: Delivery, handler: Handler) -> float:
        options = delivery.message.options
        return (options and options.timeout) or handler.timeout or 0.0

    def _finish(self, delivery: Delivery, outcome: Outcome) -> None:
        if type(outcome) is Retried and delivery.in_lane and not self._stopping:
            self._park(delivery, outcome)
        else:
            if not self._durable:
                self._lanes.leave(delivery)
            self._finished.append((delivery, outcome))
            if self._settling is None:
                self._settle_soon()
        if not self._starting:
            self._start_soon()

    def _settle_soon(self) -> None:
        if self._finished and self._settling is None and self._settles:
            self._settling = self._loop.create_task(self._settle(), name=f"busline settle {self.work.name}")
            self._settling.add_done_callback(self._settling_ended)

    def _settling_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken, self._settling, self._settles = error, None, False
            self.stop.set()

    def _start_soon(self) -> None:
        if not self._starting:
            self._starting = True
            self._loop.call_soon(self._start)

    def _park(self, delivery: Delivery, outcome: Retried) -> None:
        self._lanes.hold()
        fresh = delivery.again()
        fresh.attempt += outcome.counted
        timer = self.clock.after(outcome.after, lambda: self._unpark(fresh))
        self._parked[delivery.receipt] = timer, fresh

    def _unpark(self, delivery: Delivery) -> None:
        del self._parked[delivery.receipt]
        self._lanes.resume(delivery)
        self._start_soon()

    def _unknown(self, delivery: Delivery) -> None:
        """A job of a task that nobody alive has known for a quarter of an hour: dead, unless the App has it after all."""
        task = delivery.handler = delivery.message.task
        known = ", ".join(sorted(self.work.handlers)) or "none"
        reason = f"no worker knows the task '{task}' (this one knows {known})"
        elsewhere = Retried(0.0, LookupError(reason), counted=False)
        self._finish(delivery, elsewhere if task in self.work.elsewhere else Rejected(reason))

    def unknown(self, task: str, count: int) -> None:
        """So many jobs of a task that this worker does not know wait aside."""
        self._strangers.met(task, count)

    # --- deadlines -----------------------------------------------------------------------------------------

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_deadline = deadline
        self._timer = self.clock.after(deadline - self.clock.ticks(), self._expire)

    def _expire(self) -> None:
        self._timer, self._next_deadline = None, float("inf")
        now, earliest = self.clock.ticks(), float("inf")
        for running in self._running.values():
            if running.deadline is None or running.delivery.cut:
                continue
            if running.deadline <= now:
                self._cut(running, TIMEOUT)
            else:
                earliest = min(earliest, running.deadline)
        if earliest < float("inf"):
            self._watch(earliest)

    @staticmethod
    def _cut(running: Running, why: str) -> None:
        if running.delivery.cut is None or why == LOST:
            first = running.delivery.cut is None
            running.delivery.cut = why
            if first:
                running.task.cancel()

    # --- settling ------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        while self._finished:
            await self._gather()
            batch, self._finished = self._finished, []
            left = await self._foreign(batch, self.work.transport)
            refused = await self._persist(left)
            self._held -= len(batch)
            self._leave(batch)
            self._count(left, refused)
            self._changed.set()
        self._settling = None

    def _leave(self, batch: Sequence[Settled]) -> None:
        """On an engine that outlives us a lane opens when its record is settled: a kill repeats only what was running."""
        if self._durable and not self._stopping:
            for delivery, outcome in batch:
                if outcome is not RELEASED:  # given back before it began: it had no place in its lane
                    self._lanes.leave(delivery)
            if not self._starting:
                self._start_soon()

    async def _gather(self) -> None:
        """Lets those who finish in the next turns of the loop come along, as long as each turn brings some."""
        count = 0
        while count < len(self._finished) < GROUP:
            count = len(self._finished)
            await asyncio.sleep(0)

    async def _persist(self, batch: Sequence[Settled]) -> Sequence[Delivery]:
        trouble = Trouble(self.work.name, self.away)
        assert self._receiver is not None
        while True:
            try:
                refused = await self._receiver.settle(batch)
            except AWAY as error:
                await self.clock.sleep(trouble.again(error))
            else:
                trouble.over()
                return refused

    def _count(self, batch: Sequence[Settled], refused: Sequence[Delivery]) -> None:
        if refused:
            late = {delivery.receipt for delivery in refused}
            batch = [one for one in batch if one[0].receipt not in late]
            log.warning("%s: %d finished too late, when they were no longer ours; they run again", self.work.name, len(late))
            for delivery in refused:
                self._counts.setdefault(delivery.handler, Counts()).refused += 1
        for name, counts in tally(batch).items():
            self._counts.setdefault(name, Counts()).add(counts)
        for delivery, outcome in batch:
            if type(outcome) is Rejected:
                known = isinstance(outcome.error, Reject | ValidationError) or outcome.error is None
                log.error("%r is in the dead letters: %s", delivery, outcome.reason, exc_info=None if known else outcome.error, extra={"delivery": delivery})

    # --- losing and stopping -------------------------------------------------------------------------------

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        """These are no longer ours: whatever runs is cut, nothing it says will count."""
        gone = {delivery.receipt for delivery in deliveries}
        self._held -= len(self._unstarted(gone))
        for receipt in gone & self._running.keys():
            self._cut(self._running[receipt], LOST)
        self._start_soon()
        self._changed.set()

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """These are wanted back: what has not begun is settled as Released, what runs may end."""
        unstarted = self._unstarted({delivery.receipt for delivery in deliveries})
        self._finished.extend((delivery, RELEASED) for delivery in unstarted)
        self._settle_soon()
        self._start_soon()

    def _unstarted(self, receipts: Set[object]) -> list[Delivery]:
        """Takes out those of them that wait for their turn or for their retry."""
        waiting = self._lanes.drop()
        self._lanes.add(delivery for delivery in waiting if delivery.receipt not in receipts)
        taken = [delivery for delivery in waiting if delivery.receipt in receipts]
        for receipt in receipts & self._parked.keys():
            timer, delivery = self._parked.pop(receipt)
            timer.cancel()
            self._lanes.open(delivery)
            taken.append(delivery)
        return taken

    def missed(self, count: int) -> None:
        """So many records were gone before they were read."""
        for handler in self.work.handlers.values():
            self._counts.setdefault(handler.name, Counts()).gaps += count

    async def _shut_down(self, fetching: asyncio.Task[None], drain: float, cancel: float) -> None:
        self._stopping = True
        fetching.cancel()
        await asyncio.wait((fetching,))
        self._give_back()
        await self._until_settled(drain, self.hurry)
        for running in list(self._running.values()):
            self._cut(running, SHUTDOWN)
        await self._until_settled(cancel)
        self._settles = False
        if self._settling is not None:  # its engine is away for too long: what is unsettled runs again
            self._settling.cancel()
            await asyncio.wait((self._settling,))
        if self._timer is not None:
            self._timer.cancel()
        for name in self.running():
            log.warning("'%s' did not end in time: its delivery is handed back and runs again", name)

    def _give_back(self) -> None:
        unstarted = self._lanes.drop()
        for timer, delivery in self._parked.values():
            timer.cancel()
            unstarted.append(delivery)
        self._parked.clear()
        self._finished.extend((delivery, RELEASED) for delivery in unstarted)
        self._settle_soon()

    async def _until_settled(self, limit: float, hurry: asyncio.Event | None = None) -> None:
        hurried = self._loop.create_task((hurry or asyncio.Event()).wait())
        try:
            async with asyncio.timeout(limit):
                while (self._running or self._settling is not None) and not hurried.done():
                    waits = [hurried, *(running.task for running in self._running.values())]
                    waits += [self._settling] if self._settling is not None else []
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        hurried.cancel()


class Trouble:
    """An engine that is away: said once, noted in `away`, waited for longer and longer."""

    def __init__(self, name: str, away: dict[str, str]) -> None:
        self._name, self._away, self.tries = name, away, 0

    def again(self, error: BuslineError) -> float:
        """Seconds to wait before the next try."""
        if self.tries == 0:
            log.warning("%s: %s Nothing is lost; it goes on when the engine is back.", self._name, error)
        self.tries += 1
        self._away[self._name] = str(error)
        return float(min(0.1 * 2**self.tries, 2.0))

    def over(self) -> None:
        if self.tries:
            log.warning("%s: the engine is back", self._name)
            self._away.pop(self._name, None)
        self.tries = 0
