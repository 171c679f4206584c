"""Task, a function callable from afar; Call, a call not yet sent; Job, a call sent; Queue, where
jobs wait."""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, overload

import orjson

from busline.core.address import Address
from busline.core.arguments import Arguments
from busline.core.causes import details
from busline.core.chunks import chunks
from busline.core.clock import Seconds
from busline.core.codec import Codec
from busline.core.depends import INJECTED
from busline.core.errors import Invalid, JobFailed, NoResult, wrong
from busline.core.facts import result_key
from busline.core.ids import new_id
from busline.core.message import Delivery, Headers, Message, Options, encode_headers
from busline.core.options import duration, duration_or_none, kind, point
from busline.core.policy import DAY, Retry
from busline.core.ports import Transport
from busline.core.signature import Given, hints, is_marked, parameters, place
from busline.runtime.bus import Bus
from busline.runtime.sending import awaited_in_loop, handling

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
RESULT_TTL = 3600.0
LOOK_AGAIN = (
    5.0  # a waiter is woken by the result; this often it also asks whether the job died otherwise
)


@dataclass(frozen=True, slots=True)
class Queue:
    """Jobs of one kind, each taken by one worker."""

    name: str


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands. `attempt`: the runs begun so far; None where the engine does not know, as
    of a job that is done."""

    state: Literal["waiting", "delayed", "running", "succeeded", "failed", "unknown"]
    attempt: int | None = None


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

    @cached_property
    def result_codec(self) -> Codec:
        return Codec(self.types.get("return", Any), f"the result of {self.name}")

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
        return (await enqueue_all([self.call(*args, **kwargs)]))[0]

    def job(self, id: str) -> "Job[R]":
        """A job by its id, to ask for its status or result."""
        return Job(self, id, created=None, delivery=None)

    # --- for calls and jobs ------------------------------------------------------------------

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
        unique = (
            None if sending.unique is None else f"{name}:{sending.unique}"
        )  # a lock of this task alone
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


class Job(Generic[R_co]):
    """A call that was sent, known by its id."""

    def __init__(
        self,
        task: Task[..., Any, R_co],
        id: str,
        *,
        created: bool | None,
        delivery: Delivery | None,
    ) -> None:
        self.id = id
        self._task, self._created, self._delivery = task, created, delivery

    @property
    def _unsent(self) -> bool:
        return self._delivery is not None and self._delivery.sends is not None

    def __repr__(self) -> str:
        return (
            f"<Job {self._task.name}"
            f" {self.id}{', leaves with the outcome' if self._unsent else ''}>"
        )

    def _must_be_sent(self, what: str) -> None:
        if self._unsent:
            raise Invalid(
                wrong(
                    what,
                    "a job that was sent",
                    "one that leaves with this handler's outcome",
                    "Enqueue it with options(now=True).",
                )
            )

    @property
    def created(self) -> bool:
        """False: a job with this id or unique key was already there, and this is it."""
        self._must_be_sent("created")
        if self._created is None:
            raise Invalid(
                wrong(
                    "created",
                    "a job enqueued here and now",
                    f"the job {self.id}",
                    "Ask the one that `enqueue` returned.",
                )
            )
        return self._created

    async def status(self) -> JobStatus:
        """Where the job stands now. Raises Invalid for an unsent one."""
        self._must_be_sent("status")
        look = await (await self._task.engine()).inspector.look(self.id)
        return JobStatus(look.state, look.attempt)

    async def result(self, timeout: Seconds | None = None) -> R_co:
        """What the function returned, as soon as it did; waits at most `timeout` seconds.

        Raises JobFailed, NoResult, TimeoutError when only the wait ended, and Invalid for an unsent
        job."""
        self._must_be_sent("result")
        if not self._task.keep_result:
            raise NoResult(
                wrong(
                    self._task.name,
                    "a task that keeps its results",
                    "one that keeps none",
                    "Declare keep_result= on it.",
                )
            )
        with self._task.bus().waiting(self._task.queue_address(), self.id):
            return await self._result(timeout)

    async def _result(self, timeout: Seconds | None) -> R_co:
        clock = self._task.bus().clock
        until = float("inf") if timeout is None else clock.ticks() + duration("timeout", timeout)
        while True:
            if (kept := await self._look()) is not None:
                return self._decode(kept)
            if clock.ticks() >= until:
                raise TimeoutError(
                    wrong(
                        self._task.name,
                        f"a result within {timeout} s",
                        "none yet",
                        f"Only the wait ended: ask the job {self.id} again later.",
                    )
                )
            await (await self._task.engine()).store.wait(
                self._key, min(until, clock.ticks() + LOOK_AGAIN)
            )

    @property
    def _key(self) -> str:
        return result_key(self.id)

    async def _look(self) -> bytes | None:
        engine = await self._task.engine()
        kept = (await engine.store.get([self._key]))[0]
        if kept is not None:
            return kept
        look = await engine.inspector.look(self.id)
        if look.dead is not None:
            dead = look.dead
            raise JobFailed(
                dead.error_type or "Rejected",
                dead.error or dead.reason,
                dead.attempts,
                dead.causes,
                dead.traceback,
            )
        if look.state in ("unknown", "succeeded"):
            kept = (await engine.store.get([self._key]))[0]
            if kept is None:
                raise NoResult(
                    wrong(
                        self.id,
                        "a job that is known",
                        "none, or one whose result is no longer kept",
                        "Raise keep_result=, or ask sooner.",
                    )
                )
        return kept

    def _decode(self, kept: bytes) -> R_co:
        if kept[:1] == b"-":
            error_type, text, attempts, *more = orjson.loads(kept[1:])
            raise JobFailed(error_type, text, attempts, *details(*more[:1] or (None,)))
        value: R_co = self._task.result_codec.decode(kept[1:])
        return value


class Jobs(Sequence[Job[R_co]]):
    """The jobs of `enqueue_many`, in the order of the calls."""

    def __init__(self, jobs: list[Job[R_co]]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<Jobs {len(self._jobs)}>"

    @overload
    def __getitem__(self, index: int, /) -> Job[R_co]: ...
    @overload
    def __getitem__(self, index: slice, /) -> Sequence[Job[R_co]]: ...
    def __getitem__(self, index: int | slice, /) -> Job[R_co] | Sequence[Job[R_co]]:
        return self._jobs[index]

    async def results(self, timeout: Seconds | None = None) -> list[R_co]:
        """Every job's result, in order, within `timeout` seconds in all. Raises as `Job.result` for
        the first without."""
        if not self._jobs:
            return []
        clock = self._jobs[0]._task.bus().clock
        until = None if timeout is None else clock.ticks() + duration("timeout", timeout)
        return [
            await job.result(None if until is None else max(until - clock.ticks(), 0))
            for job in self._jobs
        ]


async def enqueue_all(calls: Iterable[Call[R]], *, now: bool = False) -> list[Job[R]]:
    """Sends calls, a thousand or 4 MiB at a time; calls of one queue keep their order."""
    jobs: list[Job[R]] = []
    async for chunk in chunks(calls, lambda call: len(call.body)):
        jobs += await _enqueue(chunk, now)
    return jobs


async def _enqueue(calls: Sequence[Call[R]], now: bool) -> list[Job[R]]:
    stamps = {task: task.stamp() for task in dict.fromkeys(call.task for call in calls)}
    messages = [stamps[call.task](call.body) for call in calls]
    ways = {task: (task.target(), now or task.now()) for task in stamps}
    groups: dict[tuple[Address, bool], list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(ways[call.task], []).append(index)
    jobs: dict[int, Job[R]] = {}
    for (address, at_once), indexes in groups.items():
        delivery = None if at_once else handling()
        there = (
            await calls[0]
            .task.bus()
            .send(address, [messages[index] for index in indexes], now=at_once)
        )
        for turn, index in enumerate(indexes):
            id = there.get(turn, messages[index].id)
            jobs[index] = Job(
                calls[index].task,
                id,
                created=None if delivery is not None else turn not in there,
                delivery=delivery,
            )
    return [jobs[index] for index in range(len(calls))]
