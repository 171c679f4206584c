"""`busline queues`: the queues of an App, and how to empty one."""

import asyncio
import json
from typing import Any

import click

from busline.app import App
from busline.cli.ask import can_ask
from busline.cli.fail import USAGE, Fail, guarded
from busline.cli.find import find
from busline.cli.inspect import aged
from busline.cli.places import queue, queues
from busline.cli.table import table
from busline.core.address import Address
from busline.core.errors import wrong
from busline.core.ports import Depth


@click.group("queues")
def command() -> None:
    """List queues, or forget the jobs of one."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@command.command("list")
@click.argument("path", metavar="[APP]", required=False)
@json_option
def list_(path: str | None, as_json: bool) -> None:
    """List the App's queues, with how many jobs wait, are delayed or retried, and run."""
    app = find(path)
    rows = guarded(lambda: asyncio.run(_listed(app)))
    click.echo(
        json.dumps(rows, indent=2) if as_json else "\n".join(table(rows)) if rows else "no queues"
    )


@command.command("purge")
@click.argument("words", nargs=-1, metavar="[APP] QUEUE")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(words: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Forget the jobs of QUEUE for ever, but for those that run. Asks first; without a terminal it
    needs --yes."""
    if len(words) not in (1, 2):
        raise click.UsageError("Expected one QUEUE, with the App before it if none is configured.")
    app = find(words[0] if len(words) == 2 else None)
    address = guarded(lambda: queue(app, words[-1]))
    if not yes and not can_ask():
        raise Fail(
            wrong("purge", "--yes where nobody can be asked", "no terminal", "Add --yes."), USAGE
        )
    if not yes:
        depth = guarded(lambda: asyncio.run(_depth(app, address)))
        count = depth.waiting + depth.delayed + depth.retrying
        click.confirm(f"Forget the {count} jobs of '{words[-1]}' for ever?", abort=True, err=True)
    done = guarded(lambda: asyncio.run(_purged(app, address)))
    click.echo(json.dumps({"purged": done}) if as_json else f"purged {done}")


async def _listed(app: App) -> list[dict[str, Any]]:
    async with app:
        known = sorted(queues(app).items())
        depth = await (await app.bus().engine(known[0][1])).inspector.depth() if known else {}
    return [{"queue": name, **aged(depth.get(address.name, Depth()))} for name, address in known]


async def _depth(app: App, address: Address) -> Depth:
    async with app:
        engine = await app.bus().engine(address)
        return (await engine.inspector.depth()).get(address.name, Depth())


async def _purged(app: App, address: Address) -> int:
    async with app:
        engine = await app.bus().engine(address)
        return await engine.inspector.clear(address.name)
