"""`busline inspect`: an App's engines, in numbers."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from busline.app import App
from busline.cli.dead import all_letters
from busline.cli.fail import guarded
from busline.cli.find import find
from busline.core.counts import Counts
from busline.core.ports import Depth, Inspector


@click.command("inspect")
@click.argument("app", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(app: str | None, as_json: bool) -> None:
    """Show the queues, groups, counts and dead letters of APP (module:app)."""
    found = find(app)
    seen = guarded(lambda: asyncio.run(look(found)))
    click.echo(json.dumps(seen, indent=2) if as_json else _text(seen))


async def look(app: App) -> dict[str, Any]:
    """Everything `inspect` shows, as plain data."""
    async with app:
        named = app.engine_names()
        seen: dict[str, Any] = {"app": app.name, "engines": {"streams": named.streams and str(named.streams), "jobs": named.jobs and str(named.jobs)}}
        seen |= {"queues": {}, "groups": [], "handlers": {}, "dead": {}}
        for engine in app.bus().engines.all():
            await _add(seen, engine.inspector, app.groups())
        return seen


async def _add(seen: dict[str, Any], inspector: Inspector, groups: Sequence[str]) -> None:
    seen["queues"] |= {name: _aged(one) for name, one in (await inspector.depth()).items()}
    seen["groups"] += [one._asdict() for one in await inspector.lag(groups)]
    for name, counts in (await inspector.counts()).items():
        total = Counts(**seen["handlers"].get(name, {}))
        total.add(counts)
        seen["handlers"][name] = asdict(total)
    dead = Counter(seen["dead"])
    async for letter in all_letters(inspector):
        dead[letter.handler] += 1
    seen["dead"] = dict(dead)


def _aged(depth: Depth) -> dict[str, Any]:
    """A queue in numbers, with the seconds for which the first has waited."""
    age = depth.age(time.time())
    return depth._asdict() | {"oldest": None if age is None else round(age, 1)}


def _text(seen: dict[str, Any]) -> str:
    lines = [f"{seen['app']}"] + [f"  {name}: {engine}" for name, engine in seen["engines"].items() if engine]
    lines += _table("queues", [{"queue": name, **one} for name, one in seen["queues"].items()])
    lines += _table("groups", seen["groups"])
    lines += _table("handlers", [{"handler": name, **one} for name, one in seen["handlers"].items()])
    lines += _table("dead letters", [{"handler": name, "dead": count} for name, count in seen["dead"].items()])
    return "\n".join(lines)


def _table(title: str, rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return [title, "  none"]
    cells = [list(rows[0]), *(["-" if value is None else str(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [title, *("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)]
