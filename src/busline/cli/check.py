"""`busline check`: the plan of an App, or everything that is wrong with it."""

import asyncio
import json
from typing import Any

import click

from busline.app import App
from busline.assembly import Run
from busline.cli.find import find, guarded
from busline.runtime.worker import Work


@click.command("check")
@click.argument("app", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(app: str | None, as_json: bool) -> None:
    """Build the plan of APP (module:app) and print it; every mistake at once, with status 2."""
    found = find(app)
    plan = guarded(lambda: asyncio.run(_plan(found)))
    click.echo(json.dumps(plan, indent=2) if as_json else _text(plan))


async def _plan(app: App) -> dict[str, Any]:
    _, plan = app.assemble(Run())
    streams, jobs = app.engine_names()
    engines = {"streams": streams and str(streams), "jobs": jobs and str(jobs)}
    return {"app": app.name, "engines": engines, "work": [_work(one) for one in plan.works]}


def _work(work: Work) -> dict[str, Any]:
    subscription = work.subscription
    return {
        "from": [address.name for address in subscription.addresses],
        "group": subscription.group,
        "handlers": [handler.name for handler in work.handlers.values()],
        "order": subscription.order if subscription.group else None,
        "concurrency": work.concurrency,
        "at_once": work.at_once,
        "timeout": {handler.name: handler.timeout for handler in work.handlers.values()},
    }


def _text(plan: dict[str, Any]) -> str:
    lines = [plan["app"]] + [f"  {name}: {engine}" for name, engine in plan["engines"].items() if engine]
    for work in plan["work"]:
        group = f", group {work['group']}, order {work['order']}" if work["group"] else ""
        lines.append(f"  {', '.join(work['from'])} -> {', '.join(work['handlers'])}{group}, {work['at_once']}")
    return "\n".join(lines)
