"""`busline peek`: what stands in a queue, or at the end of a topic."""

import asyncio
import json
import sys
from typing import Any

import click
import orjson

from busline.app import App
from busline.cli.fail import guarded
from busline.cli.find import find
from busline.cli.places import place
from busline.cli.table import readable, short, table
from busline.core.address import Address
from busline.core.clock import moment, stamp
from busline.core.message import Delivery


@click.command("peek")
@click.argument("words", nargs=-1, metavar="[APP] NAME")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True)
@click.option("--raw", is_flag=True, help="Print the bodies alone, as they are, one a line.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(words: tuple[str, ...], limit: int, raw: bool, as_json: bool) -> None:
    """Show the first jobs that wait in a queue, or the last records of a topic, and take none of
    them.

    NAME is a topic or a queue of the App; where both have it the topic is meant, and `queue:NAME`
    the queue."""
    if len(words) not in (1, 2):
        raise click.UsageError("Expected one NAME, with the App before it if none is configured.")
    app = find(words[0] if len(words) == 2 else None)
    address = guarded(lambda: place(app, words[-1]))
    seen = guarded(lambda: asyncio.run(_seen(app, address, limit)))
    if raw:
        out = sys.stdout.buffer
        out.write(b"".join((one.body or b"") + b"\n" for one in seen))
        out.flush()
    elif as_json:
        click.echo(json.dumps([_as_data(one) for one in seen], indent=2))
    else:
        click.echo("\n".join(table([_row(one) for one in seen])) if seen else "nothing there")


async def _seen(app: App, address: Address, limit: int) -> list[Delivery]:
    async with app:
        engine = await app.bus().engine(address)
        return list(await engine.inspector.peek(address, limit))


def _as_data(seen: Delivery) -> dict[str, Any]:
    """As plain data. `body`: its JSON; text where it is none."""
    return {
        "id": seen.id,
        "task": seen.message.task or None,
        "position": seen.position,
        "attempt": seen.attempt,
        "sent_at": moment(seen.message.at).isoformat(),
        "due_at": None if seen.due_at is None else seen.due_at.isoformat(),
        "key": readable(seen.key),
        "headers": [[name, readable(value)] for name, value in seen.message.headers],
        "body": _decoded(seen.body),
    }


def _decoded(body: bytes | None) -> Any:
    try:
        return None if body is None else orjson.loads(body)
    except ValueError:
        return readable(body)


def _row(seen: Delivery) -> dict[str, str | None]:
    body = None if seen.body is None else short(json.dumps(_decoded(seen.body), ensure_ascii=False))
    own = {"sent": stamp(seen.message.since), "key": readable(seen.key), "body": body}
    if seen.in_lane:
        return {"position": seen.position, **own}
    return {"id": seen.id, "task": seen.message.task, "attempt": str(seen.attempt), **own}
