"""Task, a function callable from afar; Call, a call not yet sent; Job, a call sent; Queue, where
jobs wait."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from busline.core.address import Address
from busline.core.arguments import Arguments
from busline.core.clock import Seconds
from busline.core.codec import Codec
from busline.core.depends import INJECTED
from busline.core.errors import Invalid, wrong
from busline.core.ids import new_id
from busline.core.message import Delivery, Headers, Message, Options, encode_headers
from busline.core.options import duration_or_none, kind, point
from busline.core.policy import DAY, Retry
from busline.core.ports import Transport
from busline.core.signature import Given, hints, is_marked, parameters, place
from busline.job import Job
from busline.runtime.bus import Bus
from busline.runtime.sending import awaited_in_loop, handling

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
RESULT_TTL = 3600.0


@dataclass(frozen=True, slots=True)
class Queue:
    """Jobs of one kind, each taken by one worker."""

    name: str


class Home(Protocol):
    """Whoever declared a task: a router, once it belongs to an App."""

    def bus(self) -> Bus: ...
    def full_name(self, name: str) -> str: ...
    def queue_name(self, queue: str | None) -> str: ...
    def given(self) -> Given: ...
    def check_queue(self, queue: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Sending:
    """What one call changes of its task's declaration."""

    delay: float | None = None
    at: float | None = None
    id: str | None = None
    unique: str | None = None
    headers: Headers = ()
    queue: str | None = None
    options: Options | None = None
    now: bool = False


@dataclass(frozen=True, slots=True)
class Declared:
    """What a task's decorator said."""

    name: str
    queue: str | None = None
    retry: Retry | None = None
    timeout: float | None = None
    keep_result: float | None = None


class Task(Generic[P, C, R]):
    """A function that workers run. Called, it is still the function."""

    def __init__(
        self,
        function: Callable[..., Any],
        home: Home,
        declared: Declared,
        around: Mapping[str, Any],
        *,
        late: bool = False,
    ) -> None:
        self.function, self.declared, self.home, self.around = function, declared, home, around
        self.late = late  # declared after the import: other processes do not have it
        self._sending = Sending()
        self._arguments: Arguments | None = None
        self._injected = [
            one.name
            for one in inspect.signature(function).parameters.values()
            if one.default is INJECTED
        ]
        self._keep: float | None = None
        self._results: Codec | None = None
        self.__doc__ = function.__doc__
        self.__name__ = declared.name
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Calls the function. Raises TypeError for an injected parameter that is left out: nobody
        is there to inject it."""
        if self._injected and (left := self._left_out(args, kwargs)):
            raise TypeError(
                wrong(
                    self.name,
                    f"{', '.join(f'{one}=' for one in left)} in a direct call",
                    "none",
                    "Pass what busline would inject.",
                )
            )
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]  # C is what the function returns

    def _left_out(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
        try:
            given = inspect.signature(self.function).bind_partial(*args, **kwargs).arguments
        except TypeError:  # the call itself says it
            return []
        return [one for one in self._injected if given.get(one, INJECTED) is INJECTED]

    @property
    def name(self) -> str:
        """The name on the wire: the routers' prefixes and the function's name."""
        return self.home.full_name(self.declared.name)

    @property
    def types(self) -> dict[str, Any]:
        return hints(self.function, self.around)

    @property
    def arguments(self) -> Arguments:
        """How calls are bound and encoded. Raises Invalid for a signature that no message can
        carry."""
        if self._arguments is None:
            types = self.types
            own = [one for one in parameters(self.function) if not self._is_injected(one, types)]
            self._arguments = Arguments(own, types, self.name)
        return self._arguments

    def _is_injected(self, parameter: inspect.Parameter, types: Mapping[str, Any]) -> bool:
        if parameter.default is INJECTED:
            return True
        if is_marked(types.get(parameter.name), parameter.default, self.home.given()):
            raise Invalid(
                wrong(
                    parameter.name,
                    "the default INJECTED",
                    "another",
                    f"Write `{parameter.name}: ... = INJECTED`.",
                    place=place(self.function),
                )
            )
        return False

    @property
    def keep_result(self) -> float:
        """Seconds for which results are kept: as declared, else an hour if the function returns
        something."""
        if self._keep is None:
            declared = self.declared.keep_result
            returns = self.types.get("return", Any)
            self._keep = (
                declared
                if declared is not None
                else 0.0
                if returns in (None, type(None))
                else RESULT_TTL
            )
        return self._keep

    @property
    def result_codec(self) -> Codec:
        """How its results are encoded and decoded. Raises Invalid for a type that cannot be."""
        if self._results is None:
            self._results = Codec(self.types.get("return", Any), f"the result of {self.name}")
        return self._results

    def queue_address(self) -> Address:
        """The queue it is served from."""
        return Address("queue", self.home.queue_name(self.declared.queue))

    def options(
        self,
        *,
        delay: Seconds | None = None,
        at: datetime | None = None,
        id: str | None = None,
        unique: str | None = None,
        headers: Mapping[str, str] | None = None,
        queue: str | Queue | None = None,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        now: bool = False,
    ) -> Self:
        """The same task, sent differently.

        `delay`: seconds before it starts; `at`: the moment, with a time zone. `id`: repeated, it
        gives the first job, while that lives and 24 hours after. `unique`: at most one living job
        of this task under this key. `timeout` and `retry` stand in for the declaration's. `now`:
        leave at once, not with the handler's outcome. Raises Invalid for a value that cannot be
        meant."""
        _check_options(delay, at, id, unique)
        kind("retry", retry, Retry, "a Retry")
        kind("queue", queue, (str, Queue), "a queue or its name")
        chosen = copy.copy(self)
        chosen._sending = Sending(
            duration_or_none("delay", delay),
            None if at is None else point("at", at),
            id,
            unique,
            encode_headers(headers),
            queue.name if isinstance(queue, Queue) else queue,
            _travelling(duration_or_none("timeout", timeout, zero=False), retry),
            now,
        )
        if chosen._sending.queue is not None:
            self.home.check_queue(chosen._sending.queue)
        return chosen

    def call(self, *args: P.args, **kwargs: P.kwargs) -> "Call[R]":
        """A call, encoded, for `enqueue` and `enqueue_many`. Raises TypeError or Invalid for
        arguments that do not fit."""
        arguments = self.arguments
        return Call(self, arguments.codec.encode(arguments.bind(args, kwargs)))

    @awaited_in_loop
    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> "Job[R]":
        """Sends a call. Inside a handler it leaves with the outcome, else at once.

        Raises TypeError or Invalid for arguments that do not fit, Unavailable when the engine did
        not confirm; cancelled, the job may have been sent."""
        return await self._send(self.call(*args, **kwargs).body)

    def job(self, id: str) -> "Job[R]":
        """A job by its id, to ask for its status or result."""
        return Job(self, id, created=None, delivery=None)

    # --- for calls and jobs ------------------------------------------------------------------

    async def _send(self, body: bytes, *, now: bool = False) -> "Job[R]":
        """Sends a call that is encoded."""
        message, at_once = self.stamp()(body), now or self._sending.now
        delivery = None if at_once else handling()
        there = await self.bus().send(self.target(), [message], now=at_once)
        return self._sent(there.get(0, message.id), None if delivery else not there, delivery)

    def _sent(self, id: str, created: bool | None, delivery: Delivery | None) -> "Job[R]":
        """A job that was sent, or leaves with the outcome of the delivery."""
        return Job(self, id, created=created, delivery=delivery)

    def bus(self) -> Bus:
        return self.home.bus()

    async def engine(self) -> Transport:
        return await self.bus().engine(self.queue_address())

    def target(self) -> Address:
        queue = self._sending.queue
        return (
            self.queue_address() if queue is None else Address("queue", self.home.queue_name(queue))
        )

    def now(self) -> bool:
        return self._sending.now

    def stamp(self) -> Callable[[bytes], Message]:
        """Makes messages of encoded arguments: what is the same for all of them is looked up
        once."""
        sending, clock, name = self._sending, self.bus().clock, self.name
        now = clock.time()
        if sending == Sending(queue=sending.queue, now=sending.now):
            return lambda body: Message(new_id(), body, (), None, now, name)
        due = sending.at if sending.delay is None else now + sending.delay
        remember = DAY if sending.id is not None else 0.0
        # a lock of this task alone
        unique = None if sending.unique is None else f"{name}:{sending.unique}"
        fields = name, due, unique, remember, sending.options
        return lambda body: Message(
            sending.id or new_id(), body, sending.headers, None, now, *fields
        )


def _check_options(
    delay: Seconds | None, at: datetime | None, id: str | None, unique: str | None
) -> None:
    if delay is not None and at is not None:
        raise Invalid(wrong("at", "either delay= or at=", "both", "Leave one out."))
    for name, text in (("id", id), ("unique", unique)):
        if text is not None and not (
            isinstance(text, str) and 0 < len(text) <= 512 and text.isprintable()
        ):
            raise Invalid(
                wrong(
                    name,
                    "1 to 512 printable characters",
                    repr(text)[:40],
                    "Shorten it, or hash it.",
                )
            )


def _travelling(timeout: float | None, retry: Retry | None) -> Options | None:
    if timeout is None and retry is None:
        return None
    return Options(timeout, None if retry is None else retry.numbers())


class Call(Generic[R_co]):
    """A call of a task, encoded and not yet sent."""

    __slots__ = ("body", "task")

    def __init__(self, task: Task[..., Any, R_co], body: bytes) -> None:
        self.task, self.body = task, body

    def __repr__(self) -> str:
        return f"<Call of {self.task.name}, {len(self.body)} bytes>"
