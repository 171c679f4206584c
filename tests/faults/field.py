"""Where an attack happens: workers of one App on one engine, what is published for them, what is
done to them."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from busline import Unavailable
from tests.faults import ledger
from tests.faults.judge import Commit, Fault, Promise, Story
from tests.faults.started import Started, started

ROOT = Path(__file__).parents[2]
HANDFUL = 15  # published at once
PAUSE = 0.05
BUSY = 1.0  # seconds that a machine with much else to do may take for a step
FINISH = 150.0  # what may be left on a busy machine
NOTICE = 1.0  # what a thawed process may take to hear that it was taken for dead


class Field:
    """What every engine's has. `work`: the words after which `busline run` does what is
    attacked."""

    promise: Promise
    work: tuple[str, ...]
    app: str

    def __init__(self, folder: Path, **environment: str) -> None:
        self.ledger, self.dice = folder / "ledger", random.Random(1)
        self.ledger.touch()
        self.environment = {
            **os.environ,
            **environment,
            "ATTACK_LEDGER": str(self.ledger),
            "BUSLINE_HOME": str(folder),
        }
        self.workers: list[tuple[Started, AsyncExitStack]] = []
        self.faults: list[Fault] = []
        self.commits: list[Commit] = []
        self.published = 0

    # --- what an engine says -----------------------------------------------------------------

    async def publish(self, numbers: range) -> None:
        """All of them, once. Raises Unavailable where it cannot be known."""
        raise NotImplementedError

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """While it is open one may publish."""
        raise NotImplementedError
        yield

    async def watch(self) -> None:
        """Looks at the commits until it is cancelled."""

    async def left(self) -> tuple[int, dict[int, str]]:
        """What is still to be done, and what is dead, with the reasons."""
        raise NotImplementedError

    # --- publishing --------------------------------------------------------------------------

    async def publish_until(self, stop: asyncio.Event) -> None:
        """Evenly; what may not have been written is published again."""
        while not stop.is_set():
            handful = range(self.published, self.published + HANDFUL)
            await self.surely(handful)
            self.published = handful.stop
            await asyncio.sleep(PAUSE)

    async def surely(self, handful: range) -> None:
        while True:
            with suppress(Unavailable):
                return await self.publish(handful)

    # --- workers -----------------------------------------------------------------------------

    async def join(self, **environment: str) -> Started:
        stack = AsyncExitStack()
        words = started(self.app, *self.work, folder=ROOT, env={**self.environment, **environment})
        worker = await stack.enter_async_context(words)
        self.workers.append((worker, stack))
        return worker

    async def part(self, worker: Started, number: signal.Signals) -> None:
        """It gets this signal and ends of it."""
        ((_, stack),) = [one for one in self.workers if one[0] is worker]
        self.workers = [one for one in self.workers if one[0] is not worker]
        worker.process.send_signal(number)
        await worker.process.wait()
        await stack.aclose()

    def any_worker(self) -> Started:
        return self.dice.choice(self.workers)[0]

    async def kill(self) -> None:
        """One of the workers, at once replaced by another."""
        victim = self.any_worker()
        self.note(time.monotonic(), victim)
        await self.part(victim, signal.SIGKILL)
        await self.join()

    async def freeze(self, seconds: float) -> None:
        """One of the workers for so long."""
        victim, at = self.any_worker(), time.monotonic()
        victim.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        victim.process.send_signal(signal.SIGCONT)
        self.faults.append(Fault(at, time.monotonic() + NOTICE, victim.pid))

    def note(self, at: float, worker: Started | None = None) -> None:
        """A fault that is over now."""
        self.faults.append(Fault(at, time.monotonic(), worker.pid if worker else 0))

    async def leave(self) -> None:
        """All who are left end in good order."""
        for worker, _ in list(self.workers):
            await self.part(worker, signal.SIGTERM)

    async def flows(self) -> None:
        """Until something more is written down."""
        before = self.ledger.stat().st_size
        async with asyncio.timeout(90):
            while self.ledger.stat().st_size == before:
                await asyncio.sleep(0.01)

    # --- the whole ---------------------------------------------------------------------------

    async def finish(self) -> None:
        """One worker without faults, until nothing is left."""
        words = (sys.executable, "-m", "busline", "run", self.app, "--until-idle")
        path = self.ledger.with_name("finish.log")
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *words, cwd=ROOT, env=self.environment, stderr=log
            )
        try:
            await asyncio.wait_for(process.wait(), FINISH)
        except TimeoutError:
            process.kill()
            await process.wait()
        assert process.returncode == 0, (
            f"the last worker did not end well: {path.read_text()[-3000:]}"
        )

    async def story(self) -> Story:
        left, dead = await self.left()
        return Story(
            frozenset(range(self.published)),
            ledger.read(self.ledger),
            self.faults,
            self.commits,
            left,
            dead,
        )


Inject = Callable[["Field"], Awaitable[None]]
Tell = Callable[["Field"], None]


async def attack(field: Field, inject: Inject, seconds: float, tell: Tell) -> Story:
    """Two workers, records or jobs for so many seconds, and this fault again and again, at least
    once."""
    stop = asyncio.Event()
    async with field.open(), asyncio.TaskGroup() as beside:
        watching = [beside.create_task(one) for one in (field.watch(), telling(field, tell))]
        publishing = beside.create_task(field.publish_until(stop))
        try:
            await asyncio.gather(field.join(), field.join())
            await field.flows()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await inject(field)
                await field.flows()
            stop.set()
            await publishing
        finally:
            await field.leave()
        await field.finish()
        for one in watching:
            one.cancel()
    return await field.story()


async def telling(field: Field, tell: Tell) -> None:
    while True:
        tell(field)
        await asyncio.sleep(0.5)
