"""Tests of an App, in memory: tasks run, time is moved, nothing is patched, bodies still travel as
bytes."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

from busline.app import App, Setting
from busline.core.causes import in_words
from busline.core.clock import Seconds
from busline.core.counts import Counts
from busline.core.errors import BuslineError, Invalid, wrong
from busline.core.message import DeadLetter, KeyValue, Message, encode_headers, encode_key
from busline.core.options import duration
from busline.runtime.engines import Engines
from busline.runtime.telling import Failure
from busline.sends import recorder
from busline.task import Task
from busline.testing.clock import SimClock
from busline.topic import Topic
from busline.transports.memory import MemoryTransport

__all__ = ["Died", "Failed", "Failure", "SimClock", "TestBus", "in_memory"]

T = TypeVar("T")
Named = Topic[Any] | Task[..., Any, Any] | Callable[..., Any]
PATIENCE = 10.0  # real seconds that handlers may take
ALL = 1_000_000


class Died(BuslineError):
    """A message ended in the dead letters during a test. The cause is the exception of its last
    attempt."""


class Failed(BuslineError):
    """A test is left while an attempt that failed is still to be retried. The cause is its
    exception."""


class TestBus:
    """The Apps' bus in a test: what goes in, what came out, and the clock."""

    __test__: ClassVar[bool] = False

    def __init__(
        self,
        apps: Sequence[App],
        transport: MemoryTransport,
        clock: SimClock,
        errors: Literal["raise", "keep"],
    ) -> None:
        self._apps, self._transport, self._clock, self._errors = apps, transport, clock, errors
        self._seen: set[str] = set()
        self._letters: list[DeadLetter] = []
        self._failures: list[tuple[App, Failure]] = []

    # --- putting in --------------------------------------------------------------------------

    async def publish(
        self,
        topic: Topic[T],
        value: T,
        *,
        key: KeyValue = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publishes, and returns when nothing runs and nothing is due. Raises what ended in the
        dead letters."""
        await self._put(
            topic, recorder(self._apps[0].bus(), topic, encode_headers(headers))(value, key)
        )

    async def deliver(
        self,
        topic: Topic[Any],
        body: bytes | None,
        *,
        key: KeyValue = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Puts in raw bytes, as another client would send them; otherwise as `publish`."""
        await self._put(
            topic, self._apps[0].bus().message(body, key=encode_key(key), headers=tuple(headers))
        )

    async def _put(self, topic: Topic[Any], message: Message) -> None:
        await self._transport.publish(topic.address, [message])
        await self.settled()

    # --- time --------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Returns when nothing runs and nothing is due. Raises what ended in the dead letters, and
        Invalid naming a handler that still runs after 10 real seconds."""
        await self._quiet()
        await self._raise_dead()

    async def advance(self, by: Seconds) -> None:
        """Moves the clock, stopping at every moment at which something is due; otherwise as
        `settled`."""
        target = self._clock.time() + duration("by", by, remedy="Say how far to move.")
        await self._quiet()
        while (due := self._clock.next()) is not None and due <= target:
            self._clock.move(max(due - self._clock.time(), 0))
            await self._quiet()
        self._clock.move(max(target - self._clock.time(), 0))
        await self.settled()

    async def _quiet(self) -> None:
        limit, still = time.monotonic() + PATIENCE, 0
        while still < 3:
            self._clock.move(0)
            await asyncio.sleep(0)
            still = 0 if self._busy() else still + 1
            if time.monotonic() > limit:
                running = ", ".join(self._running()) or "nothing, yet something is due"
                raise Invalid(
                    wrong(
                        running,
                        f"handlers that end within {PATIENCE:g} s",
                        "one that still runs",
                        "Replace what it waits for with override=.",
                    )
                )

    def _busy(self) -> bool:
        return (
            any(worker.busy for app in self._apps for worker in app.bus().workers)
            or not self._transport.quiet()
        )

    def _running(self) -> list[str]:
        return [
            name for app in self._apps for worker in app.bus().workers for name in worker.running()
        ]

    # --- looking -----------------------------------------------------------------------------

    def published(self, topic: Topic[T]) -> list[T]:
        """The values published to a topic, oldest first, without tombstones."""
        bodies = [message.body for message in self._transport.published(topic.address)]
        return [topic.codec.decode(body) for body in bodies if body is not None]

    def enqueued(self, task: Task[..., Any, Any]) -> list[dict[str, Any]]:
        """The arguments of every job of a task, run or not."""
        return [
            task.arguments.codec.decode(one.body or b"{}")
            for one in self._jobs()
            if one.task == task.name
        ]

    def _jobs(self) -> list[Message]:
        queues = dict.fromkeys(
            task.queue_address() for app in self._apps for task in app.all_tasks()
        )
        return [message for queue in queues for message in self._transport.published(queue)]

    def dead(self, source: Named) -> list[DeadLetter]:
        """The dead letters of a topic, a task or a subscriber's function, oldest first, redriven
        ones left out."""
        return [one for one in self._letters if self._is_of(one, source)]

    async def redrive(self, source: Named) -> int:
        """Runs them again, as they came; returns how many. Otherwise as `settled`."""
        chosen = [one.id for one in self.dead(source)]
        done = await self._transport.inspector.redrive(chosen)
        self._seen -= set(chosen)
        await self.settled()
        return done.again

    def counts(self, handler: Callable[..., Any]) -> Mapping[str, int]:
        """What became of a function's deliveries: handled, retried, dead, skipped, refused,
        gaps."""
        total = Counts()
        for app, name in self._found(handler):
            total.add(app.bus().counts.get(name, Counts()))
        return asdict(total)

    def failures(self, handler: Callable[..., Any]) -> list[Failure]:
        """The attempts of a function that failed, oldest first: each with its `attempt`, its
        `error`, and when it runs `again`."""
        found = self._found(handler)
        return [failure for app, failure in self._failures if (app, failure.handler) in found]

    def _is_of(self, letter: DeadLetter, source: Named) -> bool:
        if isinstance(source, Topic):
            return letter.address == source.name
        return any(
            letter.handler == name and letter.served in app.serves()
            for app, name in self._found(source)
        )

    def _found(self, handler: Callable[..., Any]) -> list[tuple[App, str]]:
        """The Apps that have it, each with its name there: others may have another of that name."""
        tasks = [
            (app, one.name)
            for app in self._apps
            for one in app.all_tasks()
            if one.function is getattr(handler, "function", None)
        ]
        subscribers = [
            (app, one.full_name)
            for app in self._apps
            for one in app.all_subscribers()
            if one.function is handler
        ]
        if not (found := tasks or subscribers):
            raise Invalid(
                wrong(
                    getattr(handler, "__name__", handler),
                    "a subscriber or task of these Apps",
                    "another function",
                    "Pass the decorated one.",
                )
            )
        return found

    async def _raise_dead(self) -> None:
        self._letters = list(await self._transport.inspector.dead(limit=ALL))
        new = [one for one in self._letters if one.id not in self._seen]
        self._seen.update(one.id for one in new)
        if new and self._errors == "raise":
            died = [self._died(one) for one in new]
            raise (
                died[0]
                if len(died) == 1
                else ExceptionGroup("messages ended in the dead letters", died)
            )

    def heard(self, app: App, failure: Failure) -> None:
        """An attempt of one of its handlers failed."""
        self._failures.append((app, failure))

    async def left(self) -> None:
        """As `settled`; and raises what has failed and is still to be retried: nobody has seen how
        that ends."""
        await self.settled()
        waiting = [
            one
            for _, one in self._failures
            if one.again is not None and one.again > self._clock.time()
        ]
        if waiting and self._errors == "raise":
            failed = [_failed(one) for one in waiting]
            raise (
                failed[0]
                if len(failed) == 1
                else ExceptionGroup("attempts failed and are still to be retried", failed)
            )

    def _died(self, letter: DeadLetter) -> Exception:
        cause = self._transport.errors.get(letter.id)
        died = Died(
            f"'{letter.handler}' could not handle {letter.position or letter.id}: {letter.reason}"
        )
        died.__cause__ = cause
        return died


def _failed(failure: Failure) -> Exception:
    assert failure.error is not None
    remedy = "Move the clock with `await bus.advance(...)`, or say errors='keep'."
    failed = Failed(
        wrong(
            failure.handler,
            "no attempt that is still to be retried",
            f"{failure}: {in_words(failure.error)}",
            remedy,
        )
    )
    failed.__cause__ = failure.error
    return failed


@asynccontextmanager
async def in_memory(
    *apps: App,
    start: datetime | None = None,
    override: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
    errors: Literal["raise", "keep"] = "raise",
) -> AsyncGenerator[TestBus]:
    """Runs Apps on one memory engine with a clock of its own, empty at first; topics are shared
    among them.

    `start`: the clock's first moment. `override`: other functions in the place of dependencies,
    subscribers or tasks. `errors="keep"`: what ends in the dead letters is not raised, nor, when it
    is left, what has failed and is still to be retried. Raises Invalid for an App that is open
    elsewhere."""
    clock = SimClock(start.timestamp() if start is not None else time.time())
    transport = MemoryTransport(clock)
    bus = TestBus(apps, transport, clock, errors)
    setting = Setting(
        Engines(transport, transport), clock, dict(override or {}), drain=1.0, cancel=1.0
    )
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(
                app.running_with(replace(setting, listen=partial(bus.heard, app)))
            )
        yield bus
        await bus.left()
