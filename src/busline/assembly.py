"""From declarations to what runs: every function with its chain, and one piece of work for each
subscription."""

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from busline.checks import check_body, check_returned, check_returns, check_waits
from busline.core.address import Address, redriven
from busline.core.causes import told
from busline.core.chain import Middleware, Step, chain
from busline.core.codec import JSON, Codec, codec_of
from busline.core.depends import Node
from busline.core.errors import Invalid, Reject, wrong
from busline.core.facts import result_key
from busline.core.function import kind_of
from busline.core.handler import Collect, Ending, Handler, Invoke, invoke
from busline.core.ids import new_id
from busline.core.message import Delivery, Headers, KeyValue, Message, encode_key, typed
from busline.core.options import Mistakes
from busline.core.outcome import Keep, Outcome, Rejected
from busline.core.policy import STREAM_RETRY, TASK_RETRY
from busline.core.ports import Start, Subscription
from busline.core.signature import Given, Injected, Reader, hints, parameters, place, replaced
from busline.middleware.retries import Judge, retries
from busline.middleware.validation import SKIPPED, refusal, unfamiliar, validation
from busline.router import Router, Subscriber, where
from busline.runtime.bus import Bus, Plan
from busline.runtime.engines import Engines
from busline.runtime.work import THREADS, UNLIMITED, Work
from busline.task import Task
from busline.topic import Topic, unwanted

if TYPE_CHECKING:
    from busline.middleware.tracing import Tracing

Functions = Mapping[Callable[..., Any], Callable[..., Any]]
Attempt = Callable[[Delivery], Awaitable[Outcome]]
Watch = Callable[[str, str | None], Middleware]  # a layer for a handler, of a group or of none
STREAM_BUFFER = 2000  # what a subscriber has at hand,
STREAM_AHEAD = (
    100  # and of it from one partition, where that is one lane: a slow one starves nobody
)
LANES_AHEAD = 10_000  # where a partition has many lanes: a busy one keeps nobody from the others
DEFAULT_CONCURRENCY = 100
DEFAULT_PARTITIONS = 16


@dataclass(frozen=True, slots=True)
class Run:
    """What one process runs of an App: all of it, unless told otherwise. `concurrency` caps what
    runs at once. `create_topics`: missing topics are made."""

    only: Sequence[str] = ()
    queues: Sequence[str] = ()
    concurrency: int | None = None
    create_topics: bool = False


@dataclass(slots=True)
class Assembly:
    """Compiles an App's declarations, collecting what is wrong with them."""

    root: Router
    group: Callable[[Subscriber], str]
    bus: Bus
    replaced: Functions
    topics: Sequence[Topic[Any]] = ()
    watching: Sequence[Watch] = ()
    problems: list[str] = field(default_factory=list)
    shared: dict[Node, object] = field(default_factory=dict)

    def plan(self, run: Run) -> Plan:
        """Everything this process is to run. Problems are collected, not raised."""
        reader = Reader(self.given, self.replaced, self.shared)
        self.problems += self._double_names()
        for topic in self.topics:
            self.problems += topic.problems()
        works = [*self._streams(reader, run), *self._queues(reader, run)]
        self._check_run(run)
        return Plan(works, reader.app_nodes, self.shared)

    @property
    def given(self) -> Given:
        return {kind: value for kind, value in self.root.given().items() if kind is not Delivery}

    def _try(self, build: Callable[[], Any]) -> Any:
        try:
            return build()
        except Invalid as error:
            self.problems += [one for one in str(error).splitlines() if one not in self.problems]
            return None

    # --- checks ------------------------------------------------------------------------------

    def _double_names(self) -> Iterator[str]:
        seen: dict[str, str] = {}
        named = [(one.full_name, where(one)) for one in self.root.all_subscribers()]
        named += [(task.name, where(task)) for task in self.root.all_tasks()]
        for name, at in named:
            if name in seen:
                yield wrong(
                    name,
                    "a name of its own for each subscriber and task",
                    f"two: {seen[name]} and {at}",
                    "Give one of them name=.",
                )
            seen.setdefault(name, at)
        groups: dict[tuple[str, str], str] = {}
        for one in self.root.all_subscribers():
            for topic, _ in one.source.parts:
                known = groups.setdefault((self.group(one), topic.name), where(one))
                if known != where(one):
                    yield wrong(
                        self.group(one),
                        f"one function in this group on '{topic.name}'",
                        f"two: {known} and {where(one)}",
                        "Give one of them another group=.",
                    )

    def _check_run(self, run: Run) -> None:
        names = {one.full_name for one in self.root.all_subscribers()} | {
            task.name for task in self.root.all_tasks()
        }
        for name in run.only:
            if name not in names:
                self.problems.append(
                    wrong(
                        name,
                        f"one of {', '.join(sorted(names)) or 'none'}",
                        "another",
                        "Correct --only.",
                    )
                )

    # --- streams -----------------------------------------------------------------------------

    def _streams(self, reader: Reader, run: Run) -> Iterator[Work]:
        for subscriber in self.root.all_subscribers():
            built = self._try(partial(self._stream, reader, subscriber, run))
            if (
                built is not None
                and not run.queues
                and (not run.only or subscriber.full_name in run.only)
            ):
                yield from built

    def _stream(self, reader: Reader, subscriber: Subscriber, run: Run) -> list[Work]:
        handler = self._subscriber_handler(reader, subscriber)
        group, streams = self.group(subscriber), self.bus.engines.streams
        addresses = tuple(topic.address for topic, _ in subscriber.source.parts)
        limit = self._stream_limit(subscriber)
        if handler.threaded and subscriber.concurrency is None:
            limit = min(limit, THREADS)
        limit = min(limit, run.concurrency or limit)
        if streams is None:
            return []
        ahead = STREAM_AHEAD if subscriber.order == "partition" else LANES_AHEAD
        subscription = Subscription(
            addresses, group, subscriber.order, _start(subscriber.start), ahead
        )
        work = Work(
            subscriber.full_name,
            streams,
            subscription,
            {"": handler},
            limit,
            max(STREAM_BUFFER, limit),
            STREAM_BUFFER,
            asked=subscriber.concurrency,
        )
        home = streams if streams.features.queues else self.bus.engines.jobs
        if home is None:
            return [work]
        again = Subscription((redriven(group),), tasks=frozenset((handler.name,)))
        limit = min(DEFAULT_CONCURRENCY, limit)
        return [
            work,
            Work(
                f"{subscriber.full_name} (redriven)",
                home,
                again,
                {handler.name: handler},
                limit,
                limit,
            ),
        ]

    def _stream_limit(self, subscriber: Subscriber) -> int:
        given = subscriber.concurrency
        if subscriber.order != "partition":
            return given or DEFAULT_CONCURRENCY
        partitions = sum(topic.partitions or self._unsaid() for topic, _ in subscriber.source.parts)
        if given is not None and given > partitions:
            remedy = "Use order='key' or more partitions, or lower concurrency=."
            raise Invalid(
                wrong(
                    subscriber.full_name,
                    f"concurrency up to {partitions}, the partitions, with order='partition'",
                    str(given),
                    remedy,
                    place=where(subscriber),
                )
            )
        return given or partitions

    def _unsaid(self) -> int:
        """Partitions of a topic that does not say: a server's own default is known only there."""
        streams = self.bus.engines.streams
        return DEFAULT_PARTITIONS if streams is None or streams.features.queues else UNLIMITED

    def _subscriber_handler(self, reader: Reader, subscriber: Subscriber) -> Handler:
        function = replaced(self.replaced, subscriber.function)
        policy, kind = (
            subscriber.retry or subscriber.router.policy() or STREAM_RETRY,
            kind_of(function),
        )
        with Mistakes() as mistakes:
            types, own = hints(function, subscriber.around), parameters(function)
            mistakes.of(check_body, subscriber, function, own, types)
            mistakes.of(check_returned, subscriber, function, types)
            mistakes.of(check_waits, policy, place(function))
            mistakes.of(self._stream_limit, subscriber)
            injected = mistakes.of(reader.injected, function, own[1:], types) or Injected()
        ending = Ending(
            None if subscriber.publish is None else self._publisher(subscriber.publish), each=True
        )
        call, left = invoke(function, injected, ending, spread=False)
        steps = {
            topic.name: self._step(topic, wanted, call, left)
            for topic, wanted in subscriber.source.parts
        }
        first = next(iter(steps.values())) if len(steps) == 1 else _by_address(steps)
        judge = Judge(policy, self.bus.clock, in_lane=True)
        run = self._attempt(
            subscriber.full_name, subscriber.router, first, judge, self.group(subscriber)
        )
        return Handler(subscriber.full_name, run, judge.failed, subscriber.timeout, kind.threaded)

    def _step(self, topic: Topic[Any], wanted: Any, call: Invoke, left: Ending) -> Step:
        codec = topic.codec if wanted is None else codec_of(wanted, topic.name, reads=True)
        return validation(
            codec,
            call,
            left,
            refuse=refusal,
            unwanted=None if wanted is None else unwanted(topic, wanted),
        )

    def _publisher(self, topic: Topic[Any]) -> Collect:
        bus, record = self.bus, self._try(lambda: recorder(self.bus, topic))

        def collect(delivery: Delivery, value: Any) -> None:
            if value is not None:
                bus.leave(delivery, topic.address, record(value))

        return collect

    def _attempt(
        self, name: str, router: Router, innermost: Step, judge: Judge, group: str | None = None
    ) -> Attempt:
        layers = [*(around(name, group) for around in self.watching), *router.layers()]
        return retries(judge, chain(layers, innermost), skipped=SKIPPED)

    # --- queues ------------------------------------------------------------------------------

    def _queues(self, reader: Reader, run: Run) -> list[Work]:
        tasks = [task for task in self.root.all_tasks() if not run.only or task.name in run.only]
        handlers: dict[str, Handler] = {}
        for task in tasks:
            handler = self._try(partial(self._task_handler, reader, task))
            if handler is not None:
                handlers[task.name] = handler
        served = {task.queue_address() for task in tasks}
        if run.queues:
            served = {Address("queue", self.root.queue_name(queue)) for queue in run.queues}
        jobs, limit = self.bus.engines.jobs, run.concurrency or DEFAULT_CONCURRENCY
        if jobs is None or not handlers:
            return []
        if jobs.features.durable and self.root.importable:
            self.problems += [_only_here(task) for task in tasks if task.late]
        every = frozenset(task.name for task in self.root.all_tasks())
        known = frozenset(handlers)
        return [
            Work(
                address.name,
                jobs,
                Subscription((address,), tasks=known),
                handlers,
                limit,
                limit,
                min(THREADS, limit),
                every,
            )
            for address in sorted(served)
        ]

    def _task_handler(self, reader: Reader, task: Task[..., Any, Any]) -> Handler:
        function = self.replaced.get(task) or replaced(self.replaced, task.function)
        kind, keep = kind_of(function), task.keep_result
        with Mistakes() as mistakes:
            mistakes.of(check_returns, task.name, kind, place(function))
            arguments = mistakes.of(lambda: task.arguments)
            results = mistakes.of(lambda: task.result_codec) if keep else None
            rest = [
                one
                for one in parameters(function)
                if arguments is None or one.name not in arguments.names
            ]
            injected = (
                Injected()
                if arguments is None
                else mistakes.of(reader.injected, function, rest, hints(function, task.around))
            )
        assert arguments is not None and injected is not None
        router = task.home
        assert isinstance(router, Router)
        collect = None if results is None else _keeper(results, keep)
        call, left = invoke(function, injected, Ending(collect), spread=True)
        policy = task.declared.retry or router.policy() or TASK_RETRY
        judge = Judge(
            policy, self.bus.clock, in_lane=False, bury=_failure_keeper(keep) if keep else None
        )
        run = self._attempt(
            task.name,
            router,
            validation(arguments.codec, call, left, refuse=unfamiliar(self.bus.clock)),
            judge,
        )
        return Handler(task.name, run, judge.failed, task.declared.timeout, kind.threaded)


def tracing(engines: Engines, provider: Any) -> "Tracing | None":
    """Spans, where a tracer provider is set by now: then OpenTelemetry has been imported."""
    if provider is None and (api := sys.modules.get("opentelemetry.trace")) is not None:
        provider = api.get_tracer_provider()
        if isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider)):
            return None
    if provider is None:
        return None
    from busline.middleware.tracing import Tracing

    return Tracing(provider, engines.of, engines.jobs)


def _only_here(task: Task[..., Any, Any]) -> str:
    remedy = (
        "Declare it at the top of a module, or in a function that runs while the module is"
        " imported."
    )
    return wrong(
        task.name,
        "a task that other processes get with the App",
        "one declared after the import",
        remedy,
        place=where(task),
    )


def recorder(bus: Bus, topic: Topic[Any], headers: Headers = ()) -> Callable[..., Message]:
    """Makes messages of a topic's values: what is the same for all of them is looked up once.

    What it returns raises Invalid for a value that does not fit.
    """
    encode, key_of, time = topic.codec.encode, topic.key_of, bus.clock.time
    if topic.codec.mime != JSON:
        headers = typed(headers, topic.codec.mime)

    def record(value: Any, key: KeyValue = None) -> Message:
        body = encode(value)
        encoded = encode_key(key_of(value, key))
        if encoded is None:
            topic.check_key(None)
        return Message(new_id(), body, headers, encoded, time())

    return record


def _start(start: str | datetime) -> Start:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise Invalid(
                wrong(
                    "start",
                    "a datetime with a time zone",
                    start.isoformat(),
                    "Write datetime.now(UTC), or .astimezone().",
                )
            )
        return start.timestamp()
    if start not in ("earliest", "latest"):
        raise Invalid(
            wrong(
                "start",
                "'earliest', 'latest' or a datetime",
                repr(start)[:40],
                "Leave it out for the earliest.",
            )
        )
    return start  # type: ignore[return-value]  # one of the two


def _by_address(steps: Mapping[str, Step]) -> Step:
    return lambda delivery: steps[delivery.address](delivery)


def _keeper(codec: Codec, ttl: float) -> Collect:
    def keep(delivery: Delivery, value: Any) -> None:
        try:
            encoded = codec.encode(value)
        except Invalid as error:
            raise Reject(str(error)) from error
        if delivery.sends is not None:
            delivery.sends.append(Keep(result_key(delivery.id), b"+" + encoded, ttl))

    return keep


def _failure_keeper(ttl: float) -> Callable[[Delivery, Rejected], Rejected]:
    def bury(delivery: Delivery, outcome: Rejected) -> Rejected:
        error = told(outcome.error)
        kept = [
            error.error_type or "Rejected",
            outcome.reason if error.error is None else error.error,
            delivery.attempt,
        ]
        end = orjson.dumps([*kept, (error.details() or b"").decode()])
        return replace(
            outcome, effects=(*outcome.effects, Keep(result_key(delivery.id), b"-" + end, ttl))
        )

    return bury
