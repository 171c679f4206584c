"""The loop that receives, handles and settles for one subscription."""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

from busline.core.causes import leaf
from busline.core.clock import Clock, Timer
from busline.core.counts import Counts, tally
from busline.core.handler import Handler, key_of
from busline.core.lanes import Lanes
from busline.core.message import LOST, SHUTDOWN, TIMEOUT, Delivery
from busline.core.outcome import RELEASED, Outcome, Rejected, Retried, Settled, Settlement
from busline.core.ports import UNKNOWN_LIMIT, Receiver, Subscription, Transport
from busline.core.threads import held
from busline.runtime.elsewhere import Elsewhere
from busline.runtime.exits import Exited
from busline.runtime.held import Held
from busline.runtime.sending import HANDLING, Sends
from busline.runtime.settler import Listener, Settler
from busline.runtime.strangers import Strangers
from busline.runtime.telling import Telling
from busline.runtime.trouble import AWAY, Trouble

log = logging.getLogger("busline")
BACK = 12.0  # seconds: longer than any engine needs to say that it is away
UNLIMITED = 1000  # as many at once as there are partitions, however many that turn out to be
THREADS = 2 * (os.cpu_count() or 1) + 4


@dataclass(slots=True)
class Running:
    task: asyncio.Task[None]
    delivery: Delivery
    handler: Handler
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is to do. `handlers`: by the task's name; a stream's only one under the empty
    name. `threads`: how many of those that run in threads run at once."""

    name: str
    transport: Transport
    subscription: Subscription
    handlers: Mapping[str, Handler]
    concurrency: int
    buffer: int
    threads: int = THREADS
    elsewhere: frozenset[str] = frozenset()  # tasks that the App has, and that another process runs
    asked: int | None = None  # the concurrency that the declaration asks for

    @property
    def at_once(self) -> str:
        """How many run at once, in words."""
        return (
            "one for each partition"
            if self.concurrency == UNLIMITED
            else f"{self.concurrency} at once"
        )


class Worker:
    """Receives what there is room for, runs each delivery in its lane, settles what finished in
    groups."""

    def __init__(
        self,
        work: Work,
        clock: Clock,
        elsewhere: Elsewhere,
        counts: dict[str, Counts],
        telling: Telling | None = None,
    ) -> None:
        self.work = work
        self.clock = clock
        self._elsewhere = elsewhere
        self._counts = counts
        self._telling = telling or Telling(clock)
        self._lanes = Lanes(work.concurrency)
        self._durable = work.transport.features.durable
        self._running: dict[object, Running] = {}
        self._held = Held(work.buffer, work.subscription.batch_bytes, work.threads, work.handlers)
        self._parked: dict[
            object, tuple[Timer, Delivery]
        ] = {}  # in-lane retries, and those that wait for a thread's end
        self._told: set[str] = set()  # the handlers whose threads were said to outlive their time
        self._broken: BaseException | None = None  # what ended the settling for good
        self._starting = False
        self._stopping = False
        self._timer: Timer | None = None
        self._next_deadline = float("inf")
        self._strangers = Strangers(work.name, clock)
        self._settler: Settler | None = None
        self.away: dict[str, str] = {}  # what is waited for, while an engine is away
        self._changed = asyncio.Event()
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()  # set: what runs is cancelled now

    def __repr__(self) -> str:
        return f"<Worker {self.work.name}: {len(self._running)} running, {self._held.count} held>"

    @property
    def busy(self) -> bool:
        """Whether anything is to be done now; a retry that waits for its time is not."""
        settling = self._settler is not None and self._settler.busy
        return bool(self._running or settling or self._starting or self._lanes.ready)

    @property
    def held(self) -> int:
        """How many it has received and not settled."""
        return self._held.count

    @property
    def idle(self) -> bool:
        return self._held.count == 0

    def running(self) -> list[str]:
        """The names of the functions that run now."""
        return [
            running.delivery.handler for running in list(self._running.values())
        ]  # also asked by another thread

    def oldest(self, now: float) -> float:
        """Seconds since the oldest delivery in hand and unfinished was published; 0 if there is
        none."""
        parked = (delivery for _, delivery in self._parked.values())
        running = (one.delivery for one in self._running.values())
        return max(
            (now - one.message.at for one in (*self._lanes.unstarted(), *parked, *running)),
            default=0.0,
        )

    async def run(self, drain: float, cancel: float) -> None:
        """Until `stop` is set: then nothing new starts, what runs has `drain` seconds to end, and
        is cancelled. Raises what ended the receiving for good."""
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        subscription = replace(self.work.subscription, unknown_limit=UNKNOWN_LIMIT)
        async with self.work.transport.subscribe(subscription, self) as receiver:
            listener = Listener(self._settled, self._fail)
            self._settler = Settler(
                self.work.name, receiver, self._elsewhere, self.clock, self.away, listener
            )
            self._add = self._settler.add
            fetching = self._loop.create_task(
                self._fetch(receiver), name=f"busline fetch {self.work.name}"
            )
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

    # --- receiving ---------------------------------------------------------------------------

    async def _fetch(self, receiver: Receiver) -> None:
        trouble = Trouble(self.work.name, self.away, "it receives again")
        while True:
            room = await self._room()
            try:
                deliveries = await self._received(receiver, room, trouble)
            except AWAY as error:
                await self.clock.sleep(trouble.again(error))
                continue
            trouble.over()
            self._held.add(deliveries)
            self._lanes.add(deliveries)
            self._start()

    async def _received(
        self, receiver: Receiver, room: int, trouble: "Trouble"
    ) -> Sequence[Delivery]:
        """What comes. An engine that was away is back when it lets us wait, even if nothing
        comes."""
        if not trouble.tries:
            return await receiver.receive(room)
        waited = self.clock.after(BACK, trouble.over)
        try:
            return await receiver.receive(room)
        finally:
            waited.cancel()

    async def _room(self) -> int:
        await asyncio.sleep(0)  # whoever else finishes in this turn of the loop makes room as well
        while not self._wants_more(room := self._held.room(self._lanes.behind)):
            self._changed.clear()
            await self._changed.wait()
        return room

    def _wants_more(self, room: int) -> bool:
        """Room for a quarter of the buffer, or for anything once less waits here than runs."""
        running, behind = self._lanes.running, self._lanes.behind
        return room >= max(self.work.buffer // 4, 1) or (
            room > 0 and self._held.count - behind - running <= running
        )

    # --- handling ----------------------------------------------------------------------------

    def _start(self) -> None:
        self._starting = False
        if self._stopping:
            return
        handlers, running, base = self.work.handlers, self._running, self._context
        loop, ticks = self._loop, self.clock.ticks
        for delivery in self._lanes.take():
            handler = handlers.get(delivery.message.task)
            if handler is None:
                self._unknown(delivery)
                continue
            delivery.handler = handler.name
            if handler.threaded and (before := held(key_of(delivery))) is not None:
                self._await_thread(delivery, before)
                continue
            task = asyncio.Task(
                self._handle(delivery, handler), loop=loop, name=handler.name, context=base.copy()
            )
            timeout = handler.timeout
            if delivery.message.options is not None:
                timeout = delivery.message.options.timeout or timeout
            deadline = None if timeout is None else ticks() + timeout
            running[delivery.receipt] = Running(task, delivery, handler, deadline)
            if deadline is not None and deadline < self._next_deadline:
                self._watch(deadline)

    def _await_thread(self, delivery: Delivery, before: Future[None]) -> None:
        """A run of it that is over for everybody else still has its thread: the next one begins
        when that ends."""
        self._lanes.hold()
        waiting = self._loop.create_task(_until(before), name=f"busline thread {delivery.handler}")
        self._parked[delivery.receipt] = waiting, delivery
        waiting.add_done_callback(lambda task: None if task.cancelled() else self._unpark(delivery))

    async def _handle(self, delivery: Delivery, handler: Handler) -> None:
        HANDLING.set(delivery)
        delivery.sends = Sends()
        try:
            outcome: Outcome | None = await handler.run(delivery)
        except (
            BaseException
        ) as error:  # cancellations and exits: whatever a function raises, its worker lives
            only = leaf(error)
            cause = only.__cause__ if isinstance(only, Exited) else None
            outcome = self._cut_short(delivery, handler, cause or error)
        if delivery.cut_off and isinstance(outcome, Retried | Rejected):
            outcome = self._cut_short(
                delivery, handler, asyncio.CancelledError()
            )  # it made another error of it: no failed attempt all the same
        delivery.sends = None
        del self._running[delivery.receipt]
        if outcome is not None:
            self._finish(delivery, outcome)

    def _cut_short(
        self, delivery: Delivery, handler: Handler, error: BaseException
    ) -> Outcome | None:
        if delivery.cut == LOST:
            self._held.drop((delivery,))
            self._lanes.leave(delivery)
            return None
        if delivery.cut == SHUTDOWN:
            return RELEASED
        if delivery.cut == TIMEOUT:
            return handler.fail(
                delivery, TimeoutError(f"ran longer than its {self._limit(delivery, handler):g} s")
            )
        return handler.fail(delivery, error)

    @staticmethod
    def _limit(delivery: Delivery, handler: Handler) -> float:
        options = delivery.message.options
        return (options and options.timeout) or handler.timeout or 0.0

    def _finish(self, delivery: Delivery, outcome: Outcome) -> None:
        if type(outcome) is Retried and self._waits_here(delivery, outcome):
            self._park(delivery, outcome)
        else:
            if not self._durable:
                self._lanes.leave(delivery)
            self._add((delivery, outcome))
        if not self._starting:
            self._start_soon()

    def _waits_here(self, delivery: Delivery, outcome: Retried) -> bool:
        """Tells of an attempt that runs again. Returns whether its next one waits in this worker,
        with its lane closed."""
        self._telling.retried(delivery, outcome)
        return delivery.in_lane and not self._stopping

    def _fail(self, error: BaseException) -> None:
        self._broken = error
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
        """A job of a task that nobody alive has known for a quarter of an hour: dead, unless the
        App has it after all."""
        task = delivery.handler = delivery.message.task
        known = ", ".join(sorted(self.work.handlers)) or "none"
        reason = f"no worker knows the task '{task}' (this one knows {known})"
        elsewhere = Retried(0.0, LookupError(reason), counted=False)
        self._finish(delivery, elsewhere if task in self.work.elsewhere else Rejected(reason))

    def unknown(self, task: str, count: int) -> None:
        """So many jobs of a task that this worker does not know wait aside."""
        self._strangers.met(task, count)

    # --- deadlines ---------------------------------------------------------------------------

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

    def _cut(self, running: Running, why: str) -> None:
        if running.delivery.cut is None or why == LOST:
            first = running.delivery.cut is None
            running.delivery.cut = why
            if first:
                self._loop.call_soon(
                    running.task.cancel
                )  # not before its first step: nothing of it would ever run, its end neither
                if running.handler.threaded:
                    self._tell(running.handler)

    def _tell(self, handler: Handler) -> None:
        """A thread goes on: its caller only hears of it once."""
        if handler.name not in self._told:
            self._told.add(handler.name)
            log.warning(
                "'%s' runs in a thread, which cannot be ended: until it returns it holds one of"
                " %d, and its message does not run again here",
                handler.name, self.work.threads,
            )  # fmt: skip

    # --- settling ----------------------------------------------------------------------------

    def _settled(self, batch: Sequence[Settled], settlement: Settlement) -> None:
        self._held.drop([delivery for delivery, _ in batch])
        self._leave(batch)
        self._count(batch, settlement)
        self._changed.set()

    def _leave(self, batch: Sequence[Settled]) -> None:
        """On an engine that outlives us a lane opens when its record is settled: a kill repeats
        only what was running."""
        if self._durable and not self._stopping:
            for delivery, outcome in batch:
                if (
                    outcome is not RELEASED
                ):  # given back before it began: it had no place in its lane
                    self._lanes.leave(delivery)
            if not self._starting:
                self._start_soon()

    def _count(self, batch: Sequence[Settled], settlement: Settlement) -> None:
        refused, rejected = settlement
        if rejected:
            dead = {one[0].receipt: one for one in rejected}
            batch = [dead.get(one[0].receipt, one) for one in batch]
        if refused:
            late = {delivery.receipt for delivery in refused}
            batch = [one for one in batch if one[0].receipt not in late]
            log.warning(
                "%s: %d finished too late, when they were no longer ours; they run again",
                self.work.name,
                len(late),
            )
            for delivery in refused:
                self._counts.setdefault(delivery.handler, Counts()).refused += 1
        for name, counts in tally(batch).items():
            self._counts.setdefault(name, Counts()).add(counts)
        for delivery, outcome in batch:
            if type(outcome) is Rejected:
                self._telling.dead(delivery, outcome)

    # --- losing and stopping -----------------------------------------------------------------

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        """These are no longer ours: whatever runs is cut, nothing it says will count."""
        gone = {delivery.receipt for delivery in deliveries}
        self._held.drop(self._unstarted(gone))
        forgotten = () if self._settler is None else self._settler.forget(gone)
        self._held.drop(delivery for delivery, _ in forgotten)
        self._leave(forgotten)
        for receipt in gone & self._running.keys():
            self._cut(self._running[receipt], LOST)
        self._start_soon()
        self._changed.set()

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """These are wanted back: what has not begun is settled as Released, what runs may end."""
        unstarted = self._unstarted({delivery.receipt for delivery in deliveries})
        for delivery in unstarted:
            self._add((delivery, RELEASED))
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

    def waits(self, place: str, why: str | None) -> None:
        """A part of the engine stands still, and why; None: it goes on."""
        self.away.pop(place, None)
        if why is not None:
            self.away[place] = why

    async def _shut_down(self, fetching: asyncio.Task[None], drain: float, cancel: float) -> None:
        self._stopping = True
        fetching.cancel()
        await asyncio.wait((fetching,))
        self._give_back()
        await self._until_settled(drain, self.hurry)
        for running in list(self._running.values()):
            self._cut(running, SHUTDOWN)
        await self._until_settled(cancel)
        assert self._settler is not None
        await self._settler.stop()  # its engine is away for too long: what is unsettled runs again
        if self._timer is not None:
            self._timer.cancel()
        for name in self.running():
            log.warning(
                "'%s' did not end in time: its delivery is handed back and runs again", name
            )

    def _give_back(self) -> None:
        unstarted = self._lanes.drop()
        for timer, delivery in self._parked.values():
            timer.cancel()
            unstarted.append(delivery)
        self._parked.clear()
        for delivery in unstarted:
            self._add((delivery, RELEASED))

    async def _until_settled(self, limit: float, hurry: asyncio.Event | None = None) -> None:
        hurried = self._loop.create_task((hurry or asyncio.Event()).wait())
        try:
            async with asyncio.timeout(limit):
                while (under_way := self._under_way()) and not hurried.done():
                    await asyncio.wait((hurried, *under_way), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        hurried.cancel()

    def _under_way(self) -> list[asyncio.Task[Any]]:
        assert self._settler is not None
        return [*(running.task for running in self._running.values()), *self._settler.tasks]


async def _until(ended: Future[None]) -> None:
    await asyncio.wrap_future(ended)
