"""Router: the two decorators, and what they collect."""

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from busline.core.chain import Middleware
from busline.core.clock import Seconds
from busline.core.errors import ConfigError, Invalid, excerpt, wrong
from busline.core.message import Delivery
from busline.core.options import Mistakes, duration_or_none, kind, one_of, whole_or_none, word
from busline.core.policy import Retry
from busline.core.ports import Order
from busline.core.signature import Given, check_function, declared_late, local_names, place
from busline.runtime.bus import Bus
from busline.task import Declared, Queue, Task
from busline.topic import Source, Topic

P = ParamSpec("P")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
O = TypeVar("O")  # noqa: E741 - what a function publishes: out
R = TypeVar("R")


class Subscribe(Protocol[T]):
    def __call__(
        self, function: Callable[Concatenate[T, P], R], /
    ) -> Callable[Concatenate[T, P], R]: ...


class SubscribeOut(Protocol[T, O]):
    @overload
    def __call__(
        self, function: Callable[Concatenate[T, P], Coroutine[Any, Any, O | None]], /
    ) -> Callable[Concatenate[T, P], Coroutine[Any, Any, O | None]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[T, P], AsyncIterator[O]], /
    ) -> Callable[Concatenate[T, P], AsyncIterator[O]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[T, P], O | None], /
    ) -> Callable[Concatenate[T, P], O | None]: ...


class Declare(Protocol):
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


@dataclass(slots=True)
class Subscriber:
    """A function bound to a source, as declared."""

    function: Callable[..., Any]
    source: Source[Any]
    router: "Router"
    name: str
    publish: Topic[Any] | None = None
    group: str | None = None
    order: Order = "partition"
    concurrency: int | None = None
    start: Literal["earliest", "latest"] | datetime = "earliest"
    retry: Retry | None = None
    timeout: float | None = None
    around: dict[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return self.router.full_name(self.name)


class Router:
    """Subscribers and tasks that belong together: a prefix for their names, middleware and a retry
    policy for all."""

    def __init__(
        self, *, prefix: str = "", middleware: Sequence[Middleware] = (), retry: Retry | None = None
    ) -> None:
        with Mistakes() as mistakes:
            mistakes.of(word, "prefix", prefix or None)
            mistakes.of(kind, "retry", retry, Retry, "a Retry")
            mistakes.of(_check_middleware, middleware)
        self.prefix, self.middleware, self.retry = prefix, tuple(middleware), retry
        self.subscribers: list[Subscriber] = []
        self.tasks: list[Task[..., Any, Any]] = []
        self.routers: list[Router] = []
        self.parent: Router | None = None
        self._included_at = ""

    def __repr__(self) -> str:
        return (
            f"<Router {self.prefix!r}: {len(self.subscribers)} subscribers, {len(self.tasks)}"
            " tasks>"
        )

    # --- declaring ---------------------------------------------------------------------------

    @overload
    def subscriber(
        self,
        source: Source[T],
        *,
        publish: Topic[O],
        group: str | None = None,
        name: str | None = None,
        order: Order = "partition",
        concurrency: int | None = None,
        start: Literal["earliest", "latest"] | datetime = "earliest",
        retry: Retry | None = None,
        timeout: Seconds | None = None,
    ) -> SubscribeOut[T, O]: ...
    @overload
    def subscriber(
        self,
        source: Source[T],
        *,
        group: str | None = None,
        name: str | None = None,
        order: Order = "partition",
        concurrency: int | None = None,
        start: Literal["earliest", "latest"] | datetime = "earliest",
        retry: Retry | None = None,
        timeout: Seconds | None = None,
    ) -> Subscribe[T]: ...
    def subscriber(
        self,
        source: Source[Any],
        *,
        publish: Topic[Any] | None = None,
        group: str | None = None,
        name: str | None = None,
        order: Order = "partition",
        concurrency: int | None = None,
        start: Literal["earliest", "latest"] | datetime = "earliest",
        retry: Retry | None = None,
        timeout: Seconds | None = None,
    ) -> Any:
        """Runs the function for every message of a source; each group of subscribers sees every
        message.

        The function's first parameter is the body. `publish`: where its return value goes, with its
        outcome; None is nothing, an async generator many. `group`: default `{app}.{name}`. `order`:
        one at a time in each partition, for each key, or none. `concurrency`: how many at once;
        default one for each partition, 100 for key and none. `start`: where a new group begins.
        `timeout`: seconds for one attempt."""
        around = dict(local_names(2))
        if inspect.isroutine(source):
            remedy = "Write @app.subscriber(topic)."
            raise Invalid(
                wrong(
                    "source",
                    "a Topic, or several joined by |",
                    "the function itself",
                    remedy,
                    place=place(source),
                )
            )

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            at = place(function)
            with Mistakes(heard=True) as mistakes:
                mistakes.of(check_function, function, at)
                mistakes.of(_check_source, source, at)
                mistakes.of(kind, "publish", publish, Topic, "a Topic", place=at)
                mistakes.of(one_of, "order", order, ("partition", "key", "none"), place=at)
                mistakes.of(whole_or_none, "concurrency", concurrency, place=at)
                limit = _check_common(mistakes, at, name, retry, timeout)
                mistakes.of(word, "group", group, place=at)
            if mistakes.found:
                return function
            known = name or _name(function)
            self.subscribers.append(
                Subscriber(
                    function,
                    source,
                    self,
                    known,
                    publish,
                    group,
                    order,
                    concurrency,
                    start,
                    retry,
                    limit,
                    around,
                )
            )
            return function

        return declare

    @overload
    def task(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str | Queue | None = None,
        retry: Retry | None = None,
        timeout: Seconds | None = None,
        keep_result: Seconds | None = None,
    ) -> Declare: ...
    def task(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        queue: str | Queue | None = None,
        retry: Retry | None = None,
        timeout: Seconds | None = None,
        keep_result: Seconds | None = None,
    ) -> Any:
        """Makes a function callable from afar: `await function.enqueue(...)`.

        `queue`: default one for the App. `timeout`: seconds for one attempt. `keep_result`:
        seconds; default an hour if the function returns something, else none."""
        around = dict(local_names(2))

        def declare(function: Callable[..., Any]) -> Any:
            at = place(function)
            line = queue.name if isinstance(queue, Queue) else queue
            with Mistakes(heard=True) as mistakes:
                mistakes.of(check_function, function, at)
                mistakes.of(word, "queue", line, place=at)
                limit = _check_common(mistakes, at, name, retry, timeout)
                keep = mistakes.of(duration_or_none, "keep_result", keep_result, place=at)
            if mistakes.found:
                return function
            declared = Declared(name or _name(function), line, retry, limit, keep)
            task: Task[..., Any, Any] = Task(
                function, self, declared, around, late=declared_late(function)
            )
            self.tasks.append(task)
            return task

        return declare if function is None else declare(function)

    def include(self, router: "Router") -> None:
        """Takes another router's declarations in, also those still to come. Raises ConfigError for
        a second include."""
        here = _caller()
        if router.parent is not None:
            raise ConfigError(
                [
                    wrong(
                        router.prefix or "router",
                        "a router that belongs to nobody yet",
                        f"one included at {router._included_at}",
                        "Make two routers.",
                        place=here,
                    )
                ]
            )
        if not isinstance(router, Router) or router.is_root or router is self:
            raise ConfigError(
                [
                    wrong(
                        router,
                        "a Router",
                        "an App or itself",
                        "Put the declarations into a Router.",
                        place=here,
                    )
                ]
            )
        router.parent, router._included_at = self, here
        self.routers.append(router)

    # --- belonging ---------------------------------------------------------------------------

    is_root = False
    importable = False  # whether other processes get it by importing its module

    def root(self) -> "Router":
        return self if self.parent is None else self.parent.root()

    def bus(self) -> Bus:
        root = self.root()
        if root is self:
            raise ConfigError(
                [
                    wrong(
                        self.prefix or "router",
                        "a router that an App includes",
                        "one on its own",
                        "Call app.include(router).",
                    )
                ]
            )
        return root.bus()

    def full_name(self, name: str) -> str:
        """A name with the prefixes of every router above."""
        own = self.prefix + name
        return own if self.parent is None else self.parent.full_name(own)

    def queue_name(self, queue: str | None) -> str:
        root = self.root()
        return (queue or "") if root is self else root.queue_name(queue)

    def given(self) -> Given:
        root = self.root()
        return {Delivery: None} if root is self else root.given()

    def check_queue(self, queue: str) -> None:
        root = self.root()
        if root is not self:
            root.check_queue(queue)

    def layers(self) -> tuple[Middleware, ...]:
        """The middleware around this router's functions, outermost first."""
        return self.middleware if self.parent is None else self.parent.layers() + self.middleware

    def policy(self) -> Retry | None:
        """The nearest retry policy of the routers and the App."""
        return self.retry if self.retry is not None or self.parent is None else self.parent.policy()

    def all_subscribers(self) -> Iterator[Subscriber]:
        yield from self.subscribers
        for router in self.routers:
            yield from router.all_subscribers()

    def all_tasks(self) -> Iterator[Task[..., Any, Any]]:
        yield from self.tasks
        for router in self.routers:
            yield from router.all_tasks()


def _check_middleware(middleware: Any) -> None:
    if not isinstance(middleware, Sequence) or not all(map(callable, middleware)):
        remedy = "Write middleware=[one, other]."
        raise Invalid(
            wrong(
                "middleware",
                "a list of functions of a delivery and the rest of the chain",
                excerpt(middleware),
                remedy,
            )
        )


def _check_source(source: Any, at: str) -> None:
    if not isinstance(source, Source):
        remedy = 'Declare one: orders = Topic("orders", Order).'
        raise Invalid(
            wrong("source", "a Topic, or several joined by |", excerpt(source), remedy, place=at)
        )


def _check_common(mistakes: Mistakes, at: str, name: Any, retry: Any, timeout: Any) -> float | None:
    """What subscribers and tasks have in common. Returns the deadline in seconds."""
    mistakes.of(word, "name", name, place=at)
    mistakes.of(kind, "retry", retry, Retry, "a Retry", place=at)
    return mistakes.of(duration_or_none, "timeout", timeout, zero=False, place=at)


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    known: str = getattr(function, "__name__", type(function).__name__)
    return known


def _caller() -> str:
    frame = sys._getframe(2)
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno}"


def where(declaration: "Subscriber | Task[..., Any, Any]") -> str:
    return place(declaration.function)
