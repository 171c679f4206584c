"""Compiles an App's declarations into what one process runs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from busline.assembly.making import Functions, Making, Run, Watch
from busline.assembly.queues import Queues
from busline.assembly.streams import Streams
from busline.core.depends import Node
from busline.core.errors import Invalid, wrong
from busline.core.message import Delivery
from busline.core.signature import Given, Reader
from busline.router import Router, Subscriber, where
from busline.runtime.bus import Bus
from busline.runtime.engines import Engines
from busline.runtime.open import Plan
from busline.runtime.work import Work
from busline.topic import Topic

if TYPE_CHECKING:
    from busline.middleware.tracing import Tracing

T = TypeVar("T")


@dataclass(slots=True)
class Assembly:
    """Collects what is wrong with the declarations in `problems`, and raises none of it."""

    root: Router
    group: Callable[[Subscriber], str]
    bus: Bus
    replaced: Functions
    topics: Sequence[Topic[Any]] = ()
    watching: Sequence[Watch] = ()
    problems: list[str] = field(default_factory=list)
    shared: dict[Node, object] = field(default_factory=dict)

    def plan(self, run: Run) -> Plan:
        """Everything this process is to run."""
        reader = Reader(self._given, self.replaced, self.shared)
        making = Making(self.bus, reader, self.replaced, self.watching)
        self.problems += self._double_names()
        for topic in self.topics:
            self.problems += topic.problems()
        works = [*self._streams(making, run), *self._queues(making, run)]
        self._check_run(run)
        return Plan(works, reader.app_nodes, self.shared)

    @property
    def _given(self) -> Given:
        return {kind: value for kind, value in self.root.given().items() if kind is not Delivery}

    def _streams(self, making: Making, run: Run) -> Iterator[Work]:
        streams = Streams(making, self.group)
        for one in self.root.all_subscribers():
            works = self._try(partial(streams.works, one, run))
            chosen = not run.queues and (not run.only or one.full_name in run.only)
            if works is not None and chosen:
                yield from works

    def _queues(self, making: Making, run: Run) -> list[Work]:
        queues = Queues(making, self.root)
        tasks = [task for task in self.root.all_tasks() if not run.only or task.name in run.only]
        made = [self._try(partial(queues.handler, task)) for task in tasks]
        handlers = {one.name: one for one in made if one is not None}
        if handlers:
            self.problems += queues.problems(tasks)
        return queues.works(tasks, handlers, run)

    def _try(self, build: Callable[[], T]) -> T | None:
        try:
            return build()
        except Invalid as error:
            self.problems += [one for one in str(error).splitlines() if one not in self.problems]
            return None

    def secrets(self, publishes: Sequence[Topic[Any]]) -> Iterator[str]:
        """What it sends, and cannot write."""
        sent = [one.publish for one in self.root.all_subscribers() if one.publish is not None]
        for topic in dict.fromkeys([*sent, *publishes]):
            yield from topic.codec.secrets
        for task in self.root.all_tasks():
            yield from task.arguments.codec.secrets
            if task.keep_result:
                yield from task.result_codec.secrets

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
