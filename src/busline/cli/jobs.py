"""`busline jobs`: what is known of a job."""

import asyncio
import json
from typing import Any

import click
import orjson

from busline.app import App
from busline.cli.dead import as_data, as_text
from busline.cli.fail import USAGE, Fail, guarded
from busline.cli.find import find
from busline.core.errors import Invalid, wrong
from busline.core.facts import result_key, returned


@click.group("jobs")
def command() -> None:
    """Show a job."""


@command.command("show")
@click.argument("words", nargs=-1, metavar="[APP] ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(words: tuple[str, ...], as_json: bool) -> None:
    """Show where a job stands, its result while that is kept, and how it failed. Status 2 for one
    that nobody knows."""
    if len(words) not in (1, 2):
        raise click.UsageError("Expected one ID, with the App before it if none is configured.")
    app, id = find(words[0] if len(words) == 2 else None), words[-1]
    data = guarded(lambda: asyncio.run(_found(app, id)))
    if data["state"] == "unknown":
        raise Fail(
            wrong(
                id,
                "a job that is known",
                "none, or one that is done and keeps no result",
                "Correct the id.",
            ),
            USAGE,
        )
    if as_json:
        click.echo(json.dumps(data, indent=2))
        return
    dead = data.pop("dead", None)
    lines = [f"{name:11} {value}" for name, value in data.items() if value is not None]
    click.echo("\n".join([*lines, *(["", as_text(dead)] if dead else [])]))


async def _found(app: App, id: str) -> dict[str, Any]:
    task = next(app.all_tasks(), None)
    if task is None:
        raise Invalid(wrong(app.name, "an App with tasks", "one without", "Name another App."))
    async with app:
        engine = await task.engine()
        look = await engine.inspector.look(id)
        (kept,) = await engine.store.get([result_key(id)])
    data: dict[str, Any] = {"id": id, "state": look.state, "attempt": look.attempt}
    if kept is not None and kept[:1] == b"+":
        data["result"] = orjson.loads(returned(kept))
    if look.dead is not None:
        data["dead"] = as_data(look.dead)
    return data
