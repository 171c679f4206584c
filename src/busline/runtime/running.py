"""What runs. A run is one task that takes deliveries out of their lanes and runs them one after the
other, as long as none of them waits; a function that waits keeps the task, which ends with it.

States of a run: begun, with a delivery, over. Only the run itself takes and ends its delivery;
whoever else has a reason cuts it. Between two awaits of anybody else, every delivery that runs
belongs to a function that waits, and so to a task of its own.
"""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Protocol

from busline.core.causes import leaf
from busline.core.clock import Clock, Timer
from busline.core.handler import Handler, key_of
from busline.core.lanes import Lanes
from busline.core.message import LOST, SHUTDOWN, TIMEOUT, Delivery
from busline.core.outcome import RELEASED, Acked, Outcome
from busline.core.threads import held
from busline.runtime.exits import Exited
from busline.runtime.sending import HANDLING, Sends
from busline.runtime.work import Work

WIDEST = 1024  # runs that begin at once
QUANTUM = 100  # deliveries of one run, then others have their turn


class Host(Protocol):
    """A worker, as its runs see it."""

    def begun(self) -> None:
        """A turn of the loop has passed in which functions began."""
        ...

    def ended(self, delivery: Delivery, outcome: Outcome | None) -> None:
        """It ended so; None: it was lost, nothing it says counts."""
        ...

    def waits_for(self, thread: Future[None], delivery: Delivery) -> None:
        """It cannot begin: an earlier run of it that is over for everybody else has its thread."""
        ...

    def outlived(self, handler: Handler) -> None:
        """A function was cut that runs in a thread, which nothing can end."""
        ...


class Run:
    """One task, and the delivery that it runs now. `deadline`: of that one, by the clock's
    ticks."""

    __slots__ = ("deadline", "delivery", "handler", "task")

    task: asyncio.Task[None]
    handler: Handler

    def __init__(self) -> None:
        self.delivery: Delivery | None = None
        self.deadline: float | None = None

    def __repr__(self) -> str:
        return f"<Run of {self.delivery}>"

    def failed(self, error: BaseException) -> Outcome:
        """What becomes of its delivery, which ended with this error: it may be any."""
        assert self.delivery is not None
        only = leaf(error)
        if self.delivery.cut == TIMEOUT:
            limit = limit_of(self.delivery, self.handler)
            error = TimeoutError(f"ran longer than its {limit or 0:g} s")
        elif isinstance(only, Exited) and only.__cause__ is not None:
            error = only.__cause__
        return self.handler.fail(self.delivery, error)


def limit_of(delivery: Delivery, handler: Handler) -> float | None:
    """Seconds that an attempt may take: as the call says, else as the declaration."""
    options = delivery.message.options
    return (options and options.timeout) or handler.timeout


class Running:
    """All runs of a worker. `unknown` runs what none of its handlers is for."""

    def __init__(
        self,
        work: Work,
        unknown: Handler,
        lanes: Lanes,
        clock: Clock,
        host: Host,
    ) -> None:
        self._name, self._lanes, self._host = work.name, lanes, host
        self._handlers, self._unknown = work.handlers, unknown
        self._only = work.handlers.get("")
        self._runs: set[Run] = set()
        self._turns = Turns(self._turned)
        self._deadlines = Deadlines(clock, self._runs, self.cut)
        self._starting = False
        self._context = copy_context()  # each function begins in a copy of it

    def __repr__(self) -> str:
        return f"<Running {self._name}: {len(self._runs)} runs>"

    @property
    def busy(self) -> bool:
        return bool(self._runs or self._starting or self._lanes.free)

    def deliveries(self) -> list[Delivery]:
        """What runs now; also asked by another thread."""
        return [one for run in list(self._runs) if (one := run.delivery) is not None]

    def tasks(self) -> list[asyncio.Task[None]]:
        return [run.task for run in self._runs]

    # --- beginning ---------------------------------------------------------------------------

    def start_soon(self) -> None:
        """What may start does, in the next turn of the loop."""
        if not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self.start)

    def start(self) -> None:
        """As many runs as there is work for, and as the functions so far need."""
        self._starting = False
        for _ in range(min(self._turns.width, self._lanes.free)):
            run, context = Run(), self._context.copy()
            run.task = asyncio.Task(self._run(run), name=self._name, context=context)
            self._runs.add(run)

    def _turned(self) -> None:
        self._host.begun()
        self.start()

    async def _run(self, run: Run) -> None:
        turns, turn, known = self._turns, self._turns.begin(run), None
        for _ in range(QUANTUM):
            delivery = self._lanes.take()
            if delivery is None:
                break
            handler = self._only or self._handlers.get(delivery.message.task, self._unknown)
            delivery.handler = handler.name
            if handler.threaded and (thread := held(key_of(delivery))) is not None:
                self._host.waits_for(thread, delivery)
                continue
            if handler is not known:
                run.handler = known = handler
                run.task.set_name(handler.name)
            run.delivery = delivery
            limit = handler.timeout if self._only else limit_of(delivery, handler)
            if limit is not None:
                self._deadlines.set(run, limit)
            HANDLING.set(delivery)
            before = copy_context()
            delivery.sends = Sends()
            try:
                outcome: Outcome | None = await handler.run(delivery)
            except BaseException as error:  # whatever a function raises, its worker lives
                outcome = None if delivery.cut_off else run.failed(error)
                turn = OVER
            if delivery.cut is not None:
                turn = OVER
                if delivery.cut_off and type(outcome) is not Acked:  # no attempt, whatever it made
                    outcome = RELEASED if delivery.cut == SHUTDOWN else None
            delivery.sends = run.delivery = run.deadline = None
            self._host.ended(delivery, outcome)
            if turns.count != turn or _is_marked(run.task, before):
                break
        self._runs.discard(run)
        if self._lanes.free:
            self.start_soon()

    # --- ending ------------------------------------------------------------------------------

    def recall(self, receipts: Collection[object]) -> None:
        """Their deliveries are not ours any more."""
        for run in list(self._runs):
            if run.delivery is not None and run.delivery.receipt in receipts:
                self.cut(run, LOST)

    def stop(self) -> None:
        """Cuts whatever runs."""
        self._deadlines.stop()
        for run in list(self._runs):
            self.cut(run, SHUTDOWN)

    def cut(self, run: Run, why: str) -> None:
        delivery = run.delivery
        if delivery is None or (delivery.cut is not None and why != LOST):
            return
        first, delivery.cut = delivery.cut is None, why
        if first:
            run.task.cancel()
            if run.handler.threaded:
                self._host.outlived(run.handler)


OVER = -1  # no turn of the loop


def _is_marked(task: asyncio.Task[None], before: Context) -> bool:
    """Whether a function that never waited has left something behind: a variable of its context,
    or a cancellation of its task. The next one is to find neither."""
    # a cancellation that was taken back is no more in `cancelling`, and in 3.11 comes all the same
    if task.cancelling() or task._must_cancel:  # type: ignore[attr-defined]  # of both Tasks
        return True
    try:
        return copy_context() != before
    except Exception:  # a user's values may refuse to be compared: they are taken for changed
        return True


class Turns:
    """The turns of the loop, counted while something runs: a run that sees one pass has waited.
    `width`: how many runs begin at once, one for functions that never wait, as many as there are
    places for those that do."""

    def __init__(self, passed: Callable[[], None]) -> None:
        self.count, self.width = 0, 1
        self._passed = passed
        self._fresh: list[Run] = []  # began since the last turn
        self._asked = False

    def begin(self, run: Run) -> int:
        """Returns the turn in which it begins."""
        self._fresh.append(run)
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._pass)
        return self.count

    def _pass(self) -> None:
        self.count += 1
        waiting = sum(run.delivery is not None for run in self._fresh)
        wider = min(2 * self.width, WIDEST)
        self.width = wider if waiting == len(self._fresh) else max(waiting, 1)
        self._fresh, self._asked = [], False
        self._passed()


class Deadlines:
    """One timer for the earliest deadline of all runs. `cut` is called for each that is over."""

    def __init__(
        self, clock: Clock, runs: Collection[Run], cut: Callable[[Run, str], None]
    ) -> None:
        self._clock, self._runs, self._cut = clock, runs, cut
        self._timer: Timer | None = None
        self._next = float("inf")

    def set(self, run: Run, limit: float) -> None:
        """Its delivery begins now, and has so many seconds."""
        run.deadline = self._clock.ticks() + limit
        if run.deadline < self._next:
            self._watch(run.deadline)

    def _watch(self, deadline: float) -> None:
        self.stop()
        self._next = deadline
        self._timer = self._clock.after(deadline - self._clock.ticks(), self._expire)

    def _expire(self) -> None:
        self._timer, self._next = None, float("inf")
        now = self._clock.ticks()
        for run in list(self._runs):
            if run.deadline is not None and run.deadline <= now:
                run.deadline = None
                self._cut(run, TIMEOUT)
        later = [run.deadline for run in self._runs if run.deadline is not None]
        if later:
            self._watch(min(later))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = None, float("inf")
