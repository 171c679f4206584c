"""App: declarations, and the door to what runs while it is open."""

import logging
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

from busline.assembly import Assembly, Functions, Run, Watch, tracing
from busline.checks import wrong_headers
from busline.core.chain import Middleware
from busline.core.clock import Clock, SystemClock
from busline.core.errors import ConfigError, Invalid, wrong
from busline.core.message import KeyValue, Message, encode_headers, encode_key
from busline.core.options import word
from busline.core.policy import Retry
from busline.core.served import Served, Serves
from busline.core.signature import Given
from busline.engine import Engine
from busline.job import Job, Jobs
from busline.middleware.metrics import Metrics
from busline.middleware.timing import timing
from busline.naming import Names, names
from busline.opening import Opening
from busline.router import Router, Subscriber
from busline.runtime.bus import Bus, unheard
from busline.runtime.engines import Engines
from busline.runtime.open import Consuming, Plan, consuming
from busline.runtime.sending import awaited_in_loop
from busline.runtime.telling import Listen
from busline.sends import enqueue_all, publish_all, recorder
from busline.task import Call
from busline.topic import Topic

log = logging.getLogger("busline")
T = TypeVar("T")
R = TypeVar("R")
DRAIN, CANCEL = 20.0, 2.0
PATIENCE = 10.0  # seconds in which an engine may come, when the App is opened for sending


@dataclass(slots=True)
class Setting:
    """What a test, or a command, puts in the place of the engines, the clock, some functions and
    some times."""

    engines: Engines | None = None
    clock: Clock = field(default_factory=SystemClock)
    replaced: Functions = field(default_factory=dict[Callable[..., Any], Callable[..., Any]])
    drain: float = DRAIN
    cancel: float = CANCEL
    patience: float = PATIENCE
    tracer_provider: Any = None  # instead of the one that is set for all
    listen: Listen | None = None  # hears of each attempt that failed
    note: Callable[[str], object] = unheard  # is told what the opening waits for
    metrics: Metrics | None = None


class App(Router):
    """Streams and jobs of one service. `async with app` opens it for sending, or joins what is open
    already; `app.running()` also consumes. Opening raises Unavailable where its engine is away: for
    sending after 10 s. Of two engines each is opened for sending when it is first needed.

    `streams`, `jobs`: the engines, as URLs or with options; else BUSLINE_STREAMS and BUSLINE_JOBS,
    else one embedded file. `publishes`: the topics it sends to and does not read. `namespace`: a
    prefix for its groups and queues. `middleware`: around every function, the first outermost.
    `propagate`: headers that what is handled hands on to all it sends. `lifespan`: an async context
    manager of the App, entered before anything is consumed.

    Where an OpenTelemetry tracer provider is set when the App opens, it is traced.
    """

    is_root = True

    def __init__(
        self,
        name: str,
        *,
        streams: str | Engine | None = None,
        jobs: str | Engine | None = None,
        publishes: Sequence[Topic[Any]] = (),
        namespace: str = "",
        middleware: Sequence[Middleware] = (),
        retry: Retry | None = None,
        propagate: Sequence[str] = (),
        lifespan: "Callable[[App], AbstractAsyncContextManager[object]] | None" = None,
    ) -> None:
        if word("name", name) is None:
            raise Invalid(wrong("name", "a name for the App", "None", 'Write App("shop").'))
        super().__init__(middleware=middleware, retry=retry)
        self.name, self.publishes, self.namespace = name, tuple(publishes), namespace
        self.setting = Setting()
        self.propagate = propagate
        self._named, self._lifespan = (streams, jobs), lifespan
        around = sys._getframe(1)
        self._declared_in: Mapping[str, Any] = around.f_globals
        self.importable = around.f_code.co_name == "<module>"
        self._opening = Opening(name)
        self._announced: set[str] = set()

    def __repr__(self) -> str:
        return f"<App {self.name}{', open' if self._opening.bus is not None else ''}>"

    # --- opening -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Opens it for sending, or joins those who have it open; it closes when the last of them
        has left."""
        await self._opening.enter(self._sending)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opening.leave()

    @asynccontextmanager
    async def running(self, run: Run | None = None) -> AsyncGenerator[Self]:
        """Open, and consuming: all subscribers and tasks, or what `run` names.

        Left, it drains: nothing new starts, what runs has 20 s to end. Raises ConfigError with
        every wrong declaration, and whatever ended the consuming for good."""
        owner = await self._opening.open(partial(self._consuming, run or Run()))
        try:
            yield self
        finally:
            await self._opening.close(owner)

    async def ended(self) -> None:
        """Returns when something that `running` runs ended by itself: leaving `running` then raises
        why."""
        await self._opening.ended()

    @asynccontextmanager
    async def _sending(self) -> AsyncGenerator[Bus]:
        bus, _ = self.assemble(Run(), self.setting.patience)
        async with bus.sending():
            self._opening.bus = bus
            try:
                yield bus
            finally:
                self._opening.bus = None

    @asynccontextmanager
    async def _consuming(self, run: Run) -> AsyncGenerator[Consuming]:
        bus, plan = self.assemble(run)
        setting = self.setting
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(bus.opened())
            self._opening.bus = bus
            stack.callback(setattr, self._opening, "bus", None)
            await bus.look_for([topic.address for topic in self.topics()])
            yield await stack.enter_async_context(
                consuming(bus, plan, setting.drain, setting.cancel)
            )

    def assemble(self, run: Run, patience: float = 0.0) -> tuple[Bus, Plan]:
        """Compiles the declarations. `patience`: seconds in which an engine may come. Raises
        ConfigError with all that is wrong with them."""
        problems = list(wrong_headers(self.propagate))
        engines = self._engines(problems, run.create_topics)
        traces = tracing(engines, self.setting.tracer_provider)
        bus = Bus(
            engines,
            self.setting.clock,
            propagate=self.propagate,
            outgoing=traces,
            patience=patience,
            note=self.setting.note,
            listen=self.setting.listen,
        )
        watching: list[Watch] = [
            one.around for one in (traces, self.setting.metrics) if one is not None
        ]
        if log.isEnabledFor(logging.DEBUG):
            watching.append(timing)
        assembly = Assembly(
            self, self.group_of, bus, self.setting.replaced, self.topics(), watching, problems
        )
        plan = assembly.plan(run)
        # a test hears of them where they are sent
        if not problems and self.setting.engines is None:
            problems += assembly.secrets(self.publishes)
        if problems:
            raise ConfigError(problems)
        if self._lifespan is not None:
            plan.lifespan = partial(self._lifespan, self)
        return bus, plan

    @asynccontextmanager
    async def running_with(self, setting: Setting) -> AsyncGenerator[Self]:
        """As `running`, with other engines, another clock or other functions; for tests."""
        self._opening.refuse_second()
        own, self.setting = self.setting, setting
        try:
            async with self.running():
                yield self
        finally:
            self.setting = own

    # --- engines -----------------------------------------------------------------------------

    def topics(self) -> list[Topic[Any]]:
        """Every topic that a declaration names."""
        subscribers = list(self.all_subscribers())
        read = [topic for one in subscribers for topic, _ in one.source.parts]
        written = [one.publish for one in subscribers if one.publish is not None]
        return list(dict.fromkeys([*read, *written, *self.publishes]))

    def groups(self) -> list[str]:
        """The groups of its subscribers."""
        return [self.group_of(one) for one in self.all_subscribers()]

    def serves(self) -> Serves:
        """What it serves: what tells its dead letters, counts, queues and lag from those of other
        Apps."""
        handlers: dict[Served, set[str]] = {}
        for one in self.all_subscribers():
            for topic, _ in one.source.parts:
                handlers.setdefault(Served(topic.name, self.group_of(one)), set()).add(
                    one.full_name
                )
        tasks = list(self.all_tasks())
        handlers |= {
            Served(task.queue_address().name): {one.name for one in tasks} for task in tasks
        }  # any may be sent to any of its queues
        return Serves(
            self.queue_name(None), {one: frozenset(names) for one, names in handlers.items()}
        )

    def group_of(self, subscriber: Subscriber) -> str:
        """The group that a subscriber reads for."""
        return self._prefix + (subscriber.group or f"{self.name}.{subscriber.full_name}")

    def needs(self) -> tuple[bool, bool]:
        """Whether anything declared needs an engine for streams, and one for jobs."""
        subscribers = list(self.all_subscribers())
        return bool(subscribers or self.publishes), any(True for _ in self.all_tasks())

    def engine_names(self) -> Names:
        """The engines of streams and jobs, and who named them. Raises Invalid where none can be."""
        return names(*self._named, self.needs(), self._declared_in.get("__file__"))

    def _engines(self, problems: list[str], create_topics: bool) -> Engines:
        if self.setting.engines is not None:
            return self.setting.engines
        try:
            named = self.engine_names()
            problems += named.problems()
            return named.open(self.setting.clock, create_topics)
        except (Invalid, ConfigError) as error:
            problems.append(str(error))
            return Engines()

    # --- sending -----------------------------------------------------------------------------

    @awaited_in_loop
    async def publish(
        self,
        topic: Topic[T],
        value: T,
        *,
        key: KeyValue = None,
        headers: Mapping[str, str] | None = None,
        now: bool = False,
    ) -> None:
        """Publishes a value. Inside a handler it leaves with the outcome and is dropped when the
        handler fails, unless `now`; outside at once, confirmed by the engine.

        `key`: instead of the declared one. Raises Invalid for a value that does not fit its topic,
        Unavailable when the engine did not confirm; cancelled, the message may have been sent."""
        record = recorder(self.bus(), topic, encode_headers(headers))
        await self._send(topic, [record(value, key)], now)

    @awaited_in_loop
    async def publish_many(
        self,
        topic: Topic[T],
        values: Iterable[T] | AsyncIterable[T],
        *,
        headers: Mapping[str, str] | None = None,
        now: bool = False,
    ) -> int:
        """Publishes values in their order, a thousand or 4 MiB at a time and some thousands on the
        way; returns how many. What was sent before an error stays sent, and so do the thousands
        behind it that were on the way."""
        record = recorder(self.bus(), topic, encode_headers(headers))
        return await publish_all(values, record, partial(self._send, topic, now=now))

    @awaited_in_loop
    async def tombstone(
        self,
        topic: Topic[Any],
        key: KeyValue,
        *,
        headers: Mapping[str, str] | None = None,
        now: bool = False,
    ) -> None:
        """Publishes a message without a body: the key is gone. Otherwise as `publish`."""
        if key is None:
            raise Invalid(wrong("key", "the key that is gone", "None", "Pass it."))
        message = self.bus().message(None, key=encode_key(key), headers=encode_headers(headers))
        await self._send(topic, [message], now)

    async def _send(self, topic: Topic[Any], messages: Sequence[Message], now: bool) -> int:
        if topic.name not in self._announced:
            self._announce(topic)
        await self.bus().send(topic.address, messages, now=now)
        return len(messages)

    def _announce(self, topic: Topic[Any]) -> None:
        self._announced.add(topic.name)
        if topic not in self.topics():
            log.warning(
                "'%s' publishes to '%s', which it does not name: add it to App(publishes=[...])",
                self.name,
                topic.name,
            )

    @awaited_in_loop
    async def enqueue(self, call: Call[R], *, now: bool = False) -> Job[R]:
        """Sends a call made by `task.call(...)`. As `task.enqueue`."""
        return await call.task._send(call.body, now=now)

    @awaited_in_loop
    async def enqueue_many(self, calls: Iterable[Call[R]], *, now: bool = False) -> Jobs[R]:
        """Sends calls, a thousand at a time. What was sent before an error stays sent."""
        return Jobs(await enqueue_all(calls, now=now))

    # --- as the root of its routers ----------------------------------------------------------

    @property
    def _prefix(self) -> str:
        return f"{self.namespace}." if self.namespace else ""

    def bus(self) -> Bus:
        bus = self._opening.bus
        if bus is None:
            raise Invalid(
                wrong(
                    self.name,
                    "an open App",
                    "a closed one",
                    f"Write `async with {self.name}:` or `async with {self.name}.running():`"
                    " around it.",
                )
            )
        return bus

    def queue_name(self, queue: str | None) -> str:
        return self._prefix + (queue or self.name)

    def given(self) -> Given:
        return {App: self}

    def check_queue(self, queue: str) -> None:
        known = sorted({task.declared.queue or self.name for task in self.all_tasks()})
        if queue not in known:
            raise Invalid(
                wrong(
                    queue,
                    f"a queue that a task of '{self.name}' names ({', '.join(known)})",
                    "another",
                    "Correct queue=.",
                )
            )
