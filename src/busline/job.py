"""Job, a call that was sent, and what may be asked about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, overload

from busline.core.address import Address
from busline.core.clock import Seconds
from busline.core.codec import Codec
from busline.core.errors import Invalid, JobFailed, NoResult, wrong
from busline.core.facts import result_key, returned
from busline.core.message import Delivery
from busline.core.options import duration
from busline.core.ports import Transport
from busline.runtime.bus import Bus

R_co = TypeVar("R_co", covariant=True)
LOOK_AGAIN = 5.0  # a waiter is woken by the result; this often it asks whether the job died


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands. `attempt`: the runs begun so far; None where the engine does not know, as
    of a job that is done."""

    state: Literal["waiting", "delayed", "running", "succeeded", "failed", "unknown"]
    attempt: int | None = None


class Answering(Protocol):
    """What a job is asked through: its task. `keep_result`: seconds."""

    @property
    def name(self) -> str: ...
    @property
    def keep_result(self) -> float: ...
    @property
    def result_codec(self) -> Codec: ...
    def bus(self) -> Bus: ...
    def queue_address(self) -> Address: ...
    async def engine(self) -> Transport: ...


class Job(Generic[R_co]):
    """A call that was sent, known by its id."""

    def __init__(
        self,
        task: Answering,
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
                result_key(self.id), min(until, clock.ticks() + LOOK_AGAIN)
            )

    async def _look(self) -> bytes | None:
        engine = await self._task.engine()
        kept = (await engine.store.get([result_key(self.id)]))[0]
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
            kept = (await engine.store.get([result_key(self.id)]))[0]
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
        value: R_co = self._task.result_codec.decode(returned(kept))
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
