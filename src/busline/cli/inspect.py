"""`busline inspect`: what an App has on its engines, in numbers."""

import asyncio
import json
import time
from dataclasses import asdict
from typing import Any

import click

from busline.app import App
from busline.cli.fail import guarded
from busline.cli.find import find
from busline.cli.table import table
from busline.core.counts import Counts
from busline.core.ports import Depth, Inspector
from busline.core.served import Served, Serves


@click.command("inspect")
@click.argument("app", required=False)
@click.option("--all-apps", is_flag=True, help="What other Apps have on the same engines, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(app: str | None, all_apps: bool, as_json: bool) -> None:
    """Show the queues, groups, counts and dead letters of APP (module:app)."""
    found = find(app)
    seen = guarded(lambda: asyncio.run(look(found, all_apps)))
    click.echo(json.dumps(seen, indent=2) if as_json else _text(seen))


async def look(app: App, all_apps: bool = False) -> dict[str, Any]:
    """Everything `inspect` shows, as plain data: what is the App's, and if that is asked for, what
    is not, under `others`."""
    async with app:
        named = app.engine_names()
        seen: dict[str, Any] = {
            "app": app.name,
            "engines": {
                "streams": named.streams and str(named.streams),
                "jobs": named.jobs and str(named.jobs),
            },
        }
        seen |= {"queues": {}, "groups": [], "handlers": {}, "dead": {}}
        others: dict[str, Any] = {"queues": {}, "groups": [], "handlers": [], "dead": []}
        for engine in await app.bus().every_engine():
            await _add_places(seen, others, engine.inspector, app.serves(), all_apps)
            await _add_handlers(seen, others, engine.inspector, app.serves(), all_apps)
        return seen | {"others": others} if all_apps else seen


async def _add_places(
    seen: dict[str, Any],
    others: dict[str, Any],
    inspector: Inspector,
    serves: Serves,
    all_apps: bool,
) -> None:
    for name, depth in (await inspector.depth()).items():
        (seen if serves.has_queue(name) else others)["queues"][name] = aged(depth)
    groups = [one.group for one in serves.handlers if one.group is not None]
    for lag in await inspector.lag(None if all_apps else groups):
        (seen if Served(lag.topic, lag.group) in serves.handlers else others)["groups"].append(
            lag._asdict()
        )


async def _add_handlers(
    seen: dict[str, Any],
    others: dict[str, Any],
    inspector: Inspector,
    serves: Serves,
    all_apps: bool,
) -> None:
    for whose, counts in (await inspector.counts()).items():
        if serves.has_queue(whose.queue):
            total = Counts(**seen["handlers"].get(whose.handler, {}))
            total.add(counts)
            seen["handlers"][whose.handler] = asdict(total)
        else:
            others["handlers"].append({**whose._asdict(), **asdict(counts)})
    for one in await inspector.standing(None if all_apps else serves):
        if one.served in serves:
            seen["dead"][one.handler] = seen["dead"].get(one.handler, 0) + one.letters
        else:
            others["dead"].append(
                {"handler": one.handler, **one.served._asdict(), "dead": one.letters}
            )


def aged(depth: Depth) -> dict[str, Any]:
    """A queue in numbers, with the seconds for which the first has waited."""
    age = depth.age(time.time())
    return depth._asdict() | {"oldest": None if age is None else round(age, 1)}


def _text(seen: dict[str, Any]) -> str:
    lines = [f"{seen['app']}"] + [
        f"  {name}: {engine}" for name, engine in seen["engines"].items() if engine
    ]
    lines += _titled("queues", [{"queue": name, **one} for name, one in seen["queues"].items()])
    lines += _titled("groups", seen["groups"])
    lines += _titled(
        "handlers", [{"handler": name, **one} for name, one in seen["handlers"].items()]
    )
    lines += _titled(
        "dead letters", [{"handler": name, "dead": count} for name, count in seen["dead"].items()]
    )
    for what, rows in seen.get("others", {}).items():
        lines += _titled(
            f"{what} of other Apps",
            (
                [{"queue": name, **one} for name, one in rows.items()]
                if isinstance(rows, dict)
                else rows
            ),
        )
    return "\n".join(lines)


def _titled(title: str, rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return [title, "  none"]
    return [title, *(f"  {line}" for line in table(rows))]
