"""`busline check`: the plan of an App, or everything that is wrong with it."""

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from busline.app import App
from busline.assembly import Run
from busline.cli.fail import guarded
from busline.cli.find import find
from busline.core.clock import seconds
from busline.core.policy import NUMBERS, STREAM_RETRY, TASK_RETRY, Retry, classes
from busline.naming import Named, Names
from busline.router import Subscriber
from busline.runtime.bus import Bus
from busline.runtime.engines import Engines
from busline.runtime.work import UNLIMITED, Work
from busline.task import Task


@click.command("check")
@click.argument("app", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(app: str | None, as_json: bool) -> None:
    """Build the plan of APP (module:app) and print it; every mistake at once, with status 2.

    Servers are asked too: status 69 if one is away, or a topic is missing.
    """
    found = find(app)
    plan = guarded(lambda: asyncio.run(_plan(found)))
    click.echo(json.dumps(plan, indent=2) if as_json else _text(plan))


# --- the plan as plain data ------------------------------------------------------------------


async def _plan(app: App) -> dict[str, Any]:
    bus, plan = app.assemble(Run())
    named = app.engine_names()
    await _ask_servers(app, bus, named)
    streams_work = {work.name: work for work in plan.works if work.subscription.group}
    queues_work = {work.name: work for work in plan.works if not work.subscription.group}
    return {
        "app": app.name,
        "engines": {"streams": _engine(named.streams), "jobs": _engine(named.jobs)},
        "subscribers": [
            _subscriber(one, streams_work[one.full_name]) for one in app.all_subscribers()
        ],
        "tasks": [_task(one, queues_work[one.queue_address().name]) for one in app.all_tasks()],
        "publishes": [topic.name for topic in app.publishes],
    }


def _engine(named: Named | None) -> dict[str, str] | None:
    return None if named is None else {"engine": str(named.engine), "by": named.by}


async def _ask_servers(app: App, bus: Bus, named: Names) -> None:
    """Opens them as `run` would, and looks for every topic. A file is left alone: it would be
    made."""
    streams, jobs = (one is not None and one.engine.server for one in (named.streams, named.jobs))
    asked = Bus(
        Engines(bus.engines.streams if streams else None, bus.engines.jobs if jobs else None),
        bus.clock,
    )
    async with asked.opened():
        if streams:
            await asked.look_for([topic.address for topic in app.topics()])


def _subscriber(subscriber: Subscriber, work: Work) -> dict[str, Any]:
    return {
        "handler": subscriber.full_name,
        "topics": [address.name for address in work.subscription.addresses],
        "group": work.subscription.group,
        "publish": subscriber.publish and subscriber.publish.name,
        "order": work.subscription.order,
        "concurrency": None if work.concurrency == UNLIMITED else work.concurrency,
        "retry": _retry(subscriber.retry or subscriber.router.policy() or STREAM_RETRY),
        "timeout": subscriber.timeout,
    }


def _task(task: Task[..., Any, Any], work: Work) -> dict[str, Any]:
    router: Any = task.home
    return {
        "handler": task.name,
        "queue": work.name,
        "concurrency": None if work.concurrency == UNLIMITED else work.concurrency,
        "retry": _retry(task.declared.retry or router.policy() or TASK_RETRY),
        "timeout": task.declared.timeout,
        "keep_result": task.keep_result,
    }


def _retry(retry: Retry) -> dict[str, Any]:
    numbers = {name: getattr(retry, name) for name in NUMBERS}
    errors = {
        name: [one.__name__ for one in classes(getattr(retry, name))] for name in ("on", "never")
    }
    return {
        name: seconds(value) if isinstance(value, timedelta) else value
        for name, value in numbers.items()
    } | errors


# --- the plan as text ------------------------------------------------------------------------


def _text(plan: Mapping[str, Any]) -> str:
    lines = [plan["app"]] + [
        f"  {name}: {one['engine']} ({one['by']})" for name, one in plan["engines"].items() if one
    ]
    for one in plan["subscribers"]:
        lines += [
            f"  subscriber {one['handler']}: {', '.join(one['topics'])}{_published(one)}",
            f"    group {one['group']}, order {one['order']}, {_how(one)}",
        ]
    for one in plan["tasks"]:
        kept = f"result kept {one['keep_result']:g} s" if one["keep_result"] else "keeps no result"
        lines += [f"  task {one['handler']}: queue {one['queue']}", f"    {_how(one)}, {kept}"]
    if plan["publishes"]:
        lines.append(f"  publishes {', '.join(plan['publishes'])}")
    return "\n".join(lines)


def _published(one: Mapping[str, Any]) -> str:
    return f" -> {one['publish']}" if one["publish"] else ""


def _how(one: Mapping[str, Any]) -> str:
    timeout = f", timeout {one['timeout']:g} s" if one["timeout"] else ""
    at_once = (
        "one for each partition" if one["concurrency"] is None else f"{one['concurrency']} at once"
    )
    return f"{at_once}, {_retries(one['retry'])}{timeout}"


def _retries(numbers: Mapping[str, Any]) -> str:
    retry = Retry(**{name: value for name, value in numbers.items() if name in NUMBERS})
    if retry.attempts == 1:
        return "no retry"
    jitter = "up to " if retry.jitter else ""
    waits = (
        f"{jitter}{retry.longest(1):g} s, then {retry.factor:g} times the last up to"
        f" {retry.longest(retry.attempts - 1):g} s"
    )
    return f"{retry.attempts} runs, waiting {waits}"
