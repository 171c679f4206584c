"""`busline run`: everything an App declares, until it is told to stop."""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import click

from busline.app import App
from busline.assembly import Run
from busline.cli.find import INTERNAL, Fail, find, guarded
from busline.core.counts import Counts
from busline.core.errors import Unavailable
from busline.engine import warn_in_container
from busline.runtime.bus import describe_counts
from busline.runtime.idle import until_idle

log = logging.getLogger("busline")
SAY_EVERY = 5.0
SAME_SIGNAL = 1.0  # seconds within which a repeated signal is the same one, sent to parent and child


@click.command("run")
@click.argument("app", required=False)
@click.option("--only", multiple=True, metavar="NAME", help="Run just this subscriber or task. Repeatable.")
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Take jobs from this queue only. Repeatable.")
@click.option("--concurrency", type=click.IntRange(1), help="At most so many at once, for each subscriber and queue.")
@click.option("--until-idle", "idle", is_flag=True, help="End when nothing runs, waits or is to be retried.")
@click.option("--wait", type=float, default=60.0, show_default=True, help="Seconds to wait for an engine that is away at the start.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    app: str | None, only: tuple[str, ...], queues: tuple[str, ...], concurrency: int | None, idle: bool, wait: float, log_level: str, log_format: str
) -> None:
    """Run the subscribers and tasks of APP (module:app).

    SIGTERM and Ctrl-C drain: nothing new starts, what runs has 20 s. A second Ctrl-C cancels it.
    """
    configure(log_level, log_format)
    found = find(app)
    runner = Runner(found, Run(only, queues, concurrency), idle, wait)
    status = 0
    try:
        guarded(lambda: asyncio.run(runner.serve()))
    except Fail as error:
        error.show()
        status = error.exit_code
    except BaseException:
        log.exception("busline ended by an error of its own")
        status = INTERNAL
    leave(status)


def leave(status: int) -> None:
    """Ends the process, also where a thread is stuck in a function that nothing can cut."""
    stuck = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    if stuck:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


@dataclass(slots=True)
class Runner:
    """One run of an App in this process."""

    app: App
    run: Run
    idle: bool
    wait: float
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    signalled: float | None = None
    _counts: dict[str, Counts] = field(default_factory=dict[str, Counts])

    async def serve(self) -> None:
        self._listen()
        async with AsyncExitStack() as stack:
            if await first(self._enter(stack), self.stop.wait()) == 0:
                log.info("%s", self._started())
                ends: list[Coroutine[Any, Any, Any]] = [self.stop.wait(), self.app.ended()]
                await first(*ends, *([until_idle(self.app.bus())] if self.idle else []))
                self._counts = self.app.bus().counts
                log.info("draining: nothing new starts, what runs has %g s", self.app.setting.drain)
        log.info("done: %s", describe_counts(self._counts))

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._signalled, one)

    def _signalled(self, number: int) -> None:
        now = time.monotonic()
        again = self.signalled is not None and now - self.signalled > SAME_SIGNAL
        if self.signalled is None or again:
            self.signalled = now
        if again and number == signal.SIGINT:
            for worker in self.app.bus().workers:
                worker.hurry.set()
        self.stop.set()

    async def _enter(self, stack: AsyncExitStack) -> None:
        limit, said = time.monotonic() + self.wait, 0.0
        while True:
            try:
                await stack.enter_async_context(self.app.running(self.run))
                return
            except Unavailable as error:
                if time.monotonic() >= limit:
                    raise
                if time.monotonic() - said >= SAY_EVERY:
                    log.warning("waiting for the engine: %s", error)
                    said = time.monotonic()
                await asyncio.sleep(0.2)

    def _started(self) -> str:
        streams, jobs = self.app.engine_names()
        warn_in_container((streams, jobs))
        engines = {f"{name}: {engine}" for name, engine in (("streams", streams), ("jobs", jobs)) if engine is not None}
        works = [f"{worker.work.name} ({worker.work.at_once})" for worker in self.app.bus().workers]
        return f"'{self.app.name}' runs, {', '.join(sorted(engines)) or 'no engine'}: {', '.join(works) or 'nothing to run'}"


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


class Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": record.created, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(level: str, form: str) -> None:
    """Sets logging up, only where the user has not."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    root.addHandler(handler)
    root.setLevel(level.upper())
