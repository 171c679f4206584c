"""`busline enqueue`: one job, and its result if asked for."""

import asyncio
import json
from typing import Any

import click
import orjson

from busline.app import App
from busline.cli.find import Fail, guarded, split_app
from busline.cli.publish import reason
from busline.core.errors import Invalid, JobFailed, wrong
from busline.task import Call, Job, Task

FAILED = 1


@click.command("enqueue")
@click.argument("words", nargs=-1, metavar="[APP] TASK ARGUMENTS")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@click.option("--delay", type=float, help="Seconds before it starts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(words: tuple[str, ...], wait: bool, timeout: float | None, delay: float | None, as_json: bool) -> None:
    """Enqueue TASK with ARGUMENTS, a JSON object whose keys are the parameters' names."""
    app, rest = split_app(words, "TASK ARGUMENTS")
    if len(rest) not in (1, 2):
        raise click.UsageError("Expected TASK and ARGUMENTS.")
    body = rest[1] if len(rest) == 2 else "{}"
    try:
        id, result = guarded(lambda: asyncio.run(_enqueue(app, rest[0], body, wait, timeout, delay)))
    except TimeoutError as error:
        raise Fail(str(error), FAILED) from error
    except Fail as error:
        raise Fail(str(error), FAILED) if isinstance(error.__cause__, JobFailed) else error from error.__cause__
    if as_json:
        click.echo(json.dumps({"id": id, **({"result": json.loads(result)} if wait else {})}))
    else:
        click.echo(result if wait else id)


async def _enqueue(app: App, name: str, body: str, wait: bool, timeout: float | None, delay: float | None) -> tuple[str, str]:
    task = _task(app, name)
    async with app:
        chosen = task if delay is None else task.options(delay=delay)
        job: Job[Any] = await app.enqueue(Call(chosen, _arguments(task, body)))
        return job.id, (await _result(task, job, timeout) if wait else "")


async def _result(task: Task[..., Any, Any], job: Job[Any], timeout: float | None) -> str:
    return task.result_codec.encode(await job.result(timeout)).decode()


def _task(app: App, name: str) -> Task[..., Any, Any]:
    known = {task.name: task for task in app.all_tasks()}
    if name not in known:
        raise Invalid(wrong(name, f"a task of '{app.name}' ({', '.join(sorted(known)) or 'none'})", "another", "Correct the name."))
    return known[name]


def _arguments(task: Task[..., Any, Any], body: str) -> bytes:
    codec = task.arguments.codec
    try:
        given = orjson.loads(body)
        for key in given if isinstance(given, dict) else ():
            if key not in task.arguments.names:
                raise Invalid(wrong(key, f"one of {', '.join(sorted(task.arguments.names))}", "another", "Correct the argument's name."))
        return codec.encode(codec.decode(body.encode()))
    except ValueError as error:
        if isinstance(error, Invalid):
            raise
        remedy = "Write a JSON object whose keys are the parameters' names."
        raise Invalid(wrong(task.name, "arguments that it reads", reason(error), remedy)) from error
