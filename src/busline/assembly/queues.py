"""Tasks: the handler of each, and the work of their queues."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from busline.assembly.making import Making, Run
from busline.assembly.results import failure_keeper, keeper
from busline.checks import check_returns
from busline.core.address import Address
from busline.core.errors import wrong
from busline.core.function import kind_of
from busline.core.handler import Ending, Handler, invoke
from busline.core.options import Mistakes
from busline.core.policy import TASK_RETRY
from busline.core.ports import Subscription
from busline.core.signature import Injected, hints, parameters, place, replaced
from busline.middleware.retries import Judge
from busline.middleware.validation import unfamiliar, validation
from busline.router import Router, where
from busline.runtime.work import DEFAULT_CONCURRENCY, THREADS, Work
from busline.task import Task

AnyTask = Task[..., Any, Any]


@dataclass(frozen=True, slots=True)
class Queues:
    """`root`: whoever knows all tasks of the App, and how queues are called."""

    making: Making
    root: Router

    def problems(self, tasks: Sequence[AnyTask]) -> Iterator[str]:
        """What is wrong with where they are declared."""
        jobs = self.making.bus.engines.jobs
        if jobs is not None and jobs.features.durable and self.root.importable:
            yield from (_only_here(task) for task in tasks if task.late)

    def works(
        self, tasks: Sequence[AnyTask], handlers: Mapping[str, Handler], run: Run
    ) -> list[Work]:
        """One for each queue that they are served from, or that `run` names."""
        jobs, limit = self.making.bus.engines.jobs, run.concurrency or DEFAULT_CONCURRENCY
        if jobs is None or not handlers:
            return []
        served = {task.queue_address() for task in tasks}
        if run.queues:
            served = {Address("queue", self.root.queue_name(queue)) for queue in run.queues}
        every = frozenset(task.name for task in self.root.all_tasks())
        return [
            Work(
                address.name,
                jobs,
                Subscription((address,), tasks=frozenset(handlers)),
                handlers,
                limit,
                limit,
                min(THREADS, limit),
                every,
            )
            for address in sorted(served)
        ]

    def handler(self, task: AnyTask) -> Handler:
        """Its chain. Raises Invalid with all that is wrong with it."""
        making, keep = self.making, task.keep_result
        function = making.replaced.get(task) or replaced(making.replaced, task.function)
        kind = kind_of(function)
        with Mistakes() as mistakes:
            mistakes.of(check_returns, task.name, kind, place(function))
            arguments = mistakes.of(lambda: task.arguments)
            results = mistakes.of(lambda: task.result_codec) if keep else None
            names = () if arguments is None else arguments.names
            rest = [one for one in parameters(function) if one.name not in names]
            injected = Injected()
            if arguments is not None:
                types = hints(function, task.around)
                injected = mistakes.of(making.reader.injected, function, rest, types) or injected
        assert arguments is not None
        router, clock = task.home, making.bus.clock
        assert isinstance(router, Router)
        collect = None if results is None else keeper(results, keep)
        call = invoke(function, injected, Ending(collect), spread=True)
        policy = task.declared.retry or router.policy() or TASK_RETRY
        bury = failure_keeper(keep) if keep else None
        judge = Judge(policy, clock, in_lane=False, bury=bury)
        read = validation(arguments.codec, refuse=unfamiliar(clock))
        run = making.attempt(task.name, router, judge, read, call)
        return Handler(task.name, run, judge.failed, task.declared.timeout, kind.threaded)


def _only_here(task: AnyTask) -> str:
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
