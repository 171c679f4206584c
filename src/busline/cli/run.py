"""`busline run`: everything an App declares, until it is told to stop."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import click

from busline.app import App
from busline.assembly import Run
from busline.cli.ending import Ending
from busline.cli.fail import INTERNAL, Fail, guarded
from busline.cli.find import find
from busline.cli.logs import FORMATS, LEVELS, configure
from busline.cli.pages import Answers
from busline.cli.signals import handle, listen
from busline.cli.started import first_line
from busline.core.errors import Invalid, Unavailable, wrong
from busline.runtime.bus import Bus, describe_counts
from busline.runtime.idle import until_idle
from busline.runtime.samples import Samples
from busline.runtime.worker import Worker

log = logging.getLogger("busline")
SAY_EVERY = 5.0
TRY_EVERY = 0.2
STUCK = 3.0  # seconds for which a try that is going to fail seldom waits
CLOSING = 4.0  # seconds for engines to close, after the drain


@click.command("run")
@click.argument("app", required=False)
@click.option(
    "--only", multiple=True, metavar="NAME", help="Run just this subscriber or task. Repeatable."
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="Take jobs from this queue only. Repeatable.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    help="At most so many at once, for each subscriber and queue.",
)
@click.option("--create-topics", is_flag=True, help="Make the topics that are missing.")
@click.option(
    "--until-idle", "idle", is_flag=True, help="End when nothing runs, waits or is to be retried."
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for an engine that is away at the start.",
)
@click.option(
    "--http",
    "place",
    metavar="HOST:PORT",
    help="Answer /healthz, /readyz, /metrics and /asyncapi there.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(FORMATS), default="text", show_default=True)
def command(
    app: str | None,
    only: tuple[str, ...],
    queues: tuple[str, ...],
    concurrency: int | None,
    create_topics: bool,
    idle: bool,
    wait: float,
    place: str | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run the subscribers and tasks of APP (module:app).

    SIGTERM and Ctrl-C drain: nothing new starts, what runs has 20 s. A second Ctrl-C cancels it.
    """
    handle(lambda *_: sys.exit(0))  # until there is a loop to stop
    ending = Ending()
    runner = asyncio.Runner(loop_factory=loop_factory())
    status = _status(
        lambda: _run(
            runner,
            app,
            Run(only, queues, concurrency, create_topics),
            idle,
            wait,
            place,
            (log_level, log_format),
            ending,
        )
    )
    ending.closing(CLOSING, status)
    runner.close()
    ending.leave(status)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: it moves a third more."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _status(call: Callable[[], None]) -> int:
    try:
        guarded(call)
    except Fail as error:
        error.show()
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # the process ends with a status, whatever it was
        log.exception("ended by an error that nothing handled")
        return INTERNAL
    return 0


def _run(
    runner: asyncio.Runner,
    path: str | None,
    run: Run,
    idle: bool,
    wait: float,
    place: str | None,
    logs: tuple[str, str],
    ending: Ending,
) -> None:
    app = find(path)
    configure(*logs)  # after the App's module, which may do it
    _check_queues(app, run)
    serving = Runner(app, run, idle, wait, ending)
    with serving.answers().served(place) if place else nullcontext():
        runner.run(serving.serve())


def _check_queues(app: App, run: Run) -> None:
    known = sorted({task.declared.queue or app.name for task in app.all_tasks()})
    for queue in run.queues:
        if queue not in known:
            raise Invalid(
                wrong(
                    queue,
                    f"a queue of '{app.name}' ({', '.join(known) or 'none'})",
                    "another",
                    "Correct --queue.",
                )
            )


@dataclass(slots=True)
class Runner:
    """One run of an App in this process."""

    app: App
    run: Run
    idle: bool
    wait: float
    ending: Ending
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _bus: Bus | None = None
    _samples: Samples | None = None
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _failed: str = ""  # why the last try to start failed
    _noted: tuple[str, float] = ("its engines", 0.0)  # what this try waits for, and since when

    def answers(self) -> Answers:
        """What it tells over HTTP."""
        return Answers(self.app, self._lacks, self._seen)

    def _seen(self) -> tuple[Bus, Samples] | None:
        return None if self._samples is None or self._bus is None else (self._bus, self._samples)

    def _lacks(self) -> dict[str, str]:
        """What keeps it from being ready, by name."""
        if self.stop.is_set():
            return {"run": "it was told to stop"}
        return {"start": self._away} if self._bus is None else self._bus.away()

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        listen(self._told)
        self.app.setting.note = self._waits_for
        async with AsyncExitStack() as stack:
            if await first(self._enter(stack), self.stop.wait(), self._say()) == 0:
                self._bus = self.app.bus()
                log.info("%s", await first_line(self.app, self._bus))
                await self._until_told(self._bus)
                log.info("draining: nothing new starts, what runs has %g s", self.app.setting.drain)
        log.info("done: %s", describe_counts(self._bus.counts if self._bus is not None else {}))

    async def _until_told(self, bus: Bus) -> None:
        ends: list[Coroutine[Any, Any, Any]] = [self.stop.wait(), self.app.ended()]
        if self.app.setting.metrics is not None:
            self._samples = Samples(bus, self.app.serves())
            ends.append(self._samples.keep())
        if self.idle:
            ends.append(until_idle(bus))
        await first(*ends)

    async def _enter(self, stack: AsyncExitStack) -> None:
        limit = time.monotonic() + self.wait
        while True:
            try:
                await stack.enter_async_context(self.app.running(self.run))
                return
            except Unavailable as error:
                if time.monotonic() >= limit:
                    raise
                self._failed = str(error)
                await asyncio.sleep(TRY_EVERY)

    def _waits_for(self, what: str) -> None:
        self._noted = what, time.monotonic()

    @property
    def _away(self) -> str:
        """Why the last try failed, unless this one has waited for one thing for a while."""
        what, since = self._noted
        return self._failed if self._failed and time.monotonic() - since < STUCK else what

    async def _say(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(SAY_EVERY)
            log.warning(
                "not ready after %.0f s, waiting for %s", time.monotonic() - began, self._away
            )

    # --- stopping ----------------------------------------------------------------------------

    def _limit(self, hurry: bool) -> None:
        setting = self.app.setting
        if not self._workers():
            self.ending.within(setting.cancel + CLOSING, 0)  # nothing was begun
        else:
            self.ending.within(
                (0.0 if hurry else setting.drain) + setting.cancel + CLOSING, INTERNAL
            )

    def _told(self, hurry: bool) -> None:
        """By a signal's handler: it runs also while a function blocks the loop."""
        self._limit(hurry)
        with suppress(RuntimeError):  # the loop is closed: it has stopped already
            self._loop.call_soon_threadsafe(self._stop, hurry)

    def _stop(self, hurry: bool) -> None:
        self.stop.set()
        for worker in self._workers() if hurry else ():
            worker.hurry.set()

    def _workers(self) -> Sequence[Worker]:
        """Also those that work while others are not ready yet."""
        bus = self._bus or self.app._opening.bus
        return bus.workers if bus is not None else ()


async def first(*ways: Coroutine[Any, Any, Any]) -> int:
    """Which of these ends first; the others are cancelled. Raises what it raises."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for number, task in enumerate(tasks):
        if not task.cancelled():
            task.result()
            return number
    return -1
