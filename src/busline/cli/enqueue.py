"""`busline enqueue`: one job, and its result if asked for."""

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click
import orjson
from pydantic import ValidationError

from busline.app import App
from busline.cli.fail import FAILED, Fail, guarded
from busline.cli.find import find
from busline.core.codec import explain
from busline.core.errors import Invalid, JobFailed, NoResult, wrong
from busline.task import Call, Task

FOR_EVER = "inf"


class Waiting(click.Command):
    """`--wait` with or without a number behind it, wherever it stands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for index, word in enumerate(args):
            if word == "--":
                break
            if word == "--wait" and not _number(args[index + 1 : index + 2]):
                args[index] = f"--wait={FOR_EVER}"
        return super().parse_args(ctx, args)


def _number(words: list[str]) -> bool:
    try:
        return bool(words) and float(words[0]) >= 0
    except ValueError:
        return False


@click.command("enqueue", cls=Waiting)
@click.argument("words", nargs=-1, metavar="[APP] TASK ARGUMENTS")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="[SECONDS]",
    help="Wait for the result and print it as JSON.",
)
@click.option("--delay", type=float, metavar="SECONDS", help="Seconds before it starts.")
@click.option("--at", metavar="TIME", help="When it starts: 2026-12-01T08:00+01:00.")
@click.option("--id", help="Its id: repeated, it gives the first job.")
@click.option("--unique", metavar="KEY", help="At most one living job of the task under this key.")
@click.option("--queue", metavar="NAME", help="Instead of the task's own.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(words: tuple[str, ...], wait: float | None, as_json: bool, **options: Any) -> None:
    """Enqueue TASK with ARGUMENTS, a JSON object whose keys are the parameters' names, and print
    the job's id.

    With --wait: the result. Status 1 if the job failed, or if there was no result in time; then it
    goes on."""
    app, name, body = _words(words)
    sent = guarded(lambda: asyncio.run(_enqueue(app, name, body, wait, options)))
    if as_json:
        click.echo(json.dumps(sent.as_data()))
    elif sent.error is None:
        click.echo(sent.id if wait is None else sent.result)
    if sent.error is not None:
        raise Fail(f"the job {sent.id}: {sent.error}", FAILED)


def _words(words: tuple[str, ...]) -> tuple[App, str, str]:
    if len(words) == 3:
        return find(words[0]), words[1], words[2]
    if len(words) == 2 and ":" in words[0] and not words[1].lstrip().startswith("{"):
        return find(words[0]), words[1], "{}"
    if len(words) not in (1, 2):
        raise click.UsageError(
            "Expected TASK and ARGUMENTS, with the App before them if none is configured."
        )
    return find(None), words[0], words[1] if len(words) == 2 else "{}"


@dataclass(slots=True)
class Sent:
    """A job, and how the wait for it ended. `result`: JSON text."""

    id: str
    created: bool
    result: str | None = None
    error: JobFailed | TimeoutError | None = None

    def as_data(self) -> dict[str, Any]:
        data: dict[str, Any] = {"id": self.id, "created": self.created}
        if self.result is not None:
            data["result"] = json.loads(self.result)
        if isinstance(self.error, JobFailed):
            data["failed"] = {
                "error_type": self.error.error_type,
                "error": self.error.message,
                "attempts": self.error.attempts,
            }
        elif self.error is not None:
            data["timeout"] = str(self.error)
        return data


async def _enqueue(
    app: App, name: str, body: str, wait: float | None, options: dict[str, Any]
) -> Sent:
    task = _task(app, name)
    if wait is not None and not task.keep_result:
        raise NoResult(
            wrong(
                name,
                "a task that keeps its results",
                "one that keeps none",
                "Declare keep_result= on it, or leave --wait out.",
            )
        )
    chosen = task.options(**_meant(options))
    async with app:
        job = await app.enqueue(Call(chosen, _arguments(task, body)))
        sent = Sent(job.id, job.created)
        if wait is not None:
            try:
                value = await job.result(None if wait == float(FOR_EVER) else wait)
                sent.result = task.result_codec.encode(value).decode()
            except (JobFailed, TimeoutError) as error:
                sent.error = error
        return sent


def _meant(options: dict[str, Any]) -> dict[str, Any]:
    """The options as a task takes them."""
    meant = {name: value for name, value in options.items() if value is not None}
    meant["headers"] = dict(pair(one) for one in meant["headers"])
    if "at" in meant:
        meant["at"] = _moment(meant["at"])
    return meant


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            wrong("at", "a time with its zone", repr(text)[:60], "Write 2026-12-01T08:00+01:00.")
        ) from error


def pair(text: str) -> tuple[str, str]:
    """A header as it is written behind `--header`."""
    name, found, value = text.partition("=")
    if not (name and found):
        raise Invalid(wrong(text, "NAME=VALUE", "another form", "Write --header name=value."))
    return name, value


def _task(app: App, name: str) -> Task[..., Any, Any]:
    known = {task.name: task for task in app.all_tasks()}
    if name not in known:
        raise Invalid(
            wrong(
                name,
                f"a task of '{app.name}' ({', '.join(sorted(known)) or 'none'})",
                "another",
                "Correct the name.",
            )
        )
    return known[name]


def _arguments(task: Task[..., Any, Any], body: str) -> bytes:
    try:
        given = orjson.loads(body)
        _check_names(task, given)
        return task.arguments.codec.encode(task.arguments.codec.decode(body.encode()))
    except Invalid:
        raise
    except ValueError as error:
        remedy = "Write a JSON object whose keys are the parameters' names."
        raise Invalid(wrong(task.name, "arguments that it reads", reason(error), remedy)) from error


def _check_names(task: Task[..., Any, Any], given: object) -> None:
    for key in given if isinstance(given, dict) else ():
        if key not in task.arguments.names:
            expected = f"one of {', '.join(sorted(task.arguments.names)) or 'none'}"
            raise Invalid(wrong(key, expected, "another", "Correct the argument's name."))


def reason(error: ValueError) -> str:
    """Why a body was not read, in one line."""
    return explain(error) if isinstance(error, ValidationError) else str(error)
