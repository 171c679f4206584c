"""`busline dead`: what ended in the dead letters, and the way back."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import click

from busline.app import App
from busline.cli.find import USAGE, Fail, find, guarded
from busline.core.clock import moment
from busline.core.message import DeadLetter
from busline.core.ports import Inspector, Redriven

PAGE = 500


@click.group("dead")
def command() -> None:
    """List, show, redrive or purge dead letters."""


app_option = click.option("--app", "app", metavar="MODULE:APP", help="The App, if not configured.")
handler_option = click.option("--handler", "handlers", multiple=True, metavar="NAME", help="Of this subscriber or task. Repeatable.")


def _parts(words: tuple[str, ...], app: str | None) -> tuple[App, tuple[str, ...]]:
    return (find(words[0]), words[1:]) if words and ":" in words[0] else (find(app), words)


@command.command("list")
@click.argument("words", nargs=-1, metavar="[APP]")
@app_option
@handler_option
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_(words: tuple[str, ...], app: str | None, handlers: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List dead letters, oldest first."""
    found, _ = _parts(words, app)
    letters = guarded(lambda: asyncio.run(_letters(found, handlers, limit)))
    if as_json:
        click.echo(json.dumps([as_data(one) for one in letters], indent=2))
        return
    for one in letters:
        click.echo(f"{one.id}  {moment(one.died_at):%Y-%m-%d %H:%M:%S}  {one.handler}  {one.position or one.address}  {_short(one)}")
    if not letters:
        click.echo("no dead letters")


@command.command("show")
@click.argument("words", nargs=-1, metavar="[APP] ID")
@app_option
@click.option("--json", "as_json", is_flag=True)
def show(words: tuple[str, ...], app: str | None, as_json: bool) -> None:
    """Show one dead letter whole."""
    found, ids = _parts(words, app)
    if len(ids) != 1:
        raise click.UsageError("Expected one ID.")
    letters = guarded(lambda: asyncio.run(_letters(found, (), 1, id=ids[0])))
    if not letters:
        raise Fail(f"'{ids[0]}': expected a dead letter's id, got another. List them with `busline dead list`.", USAGE)
    data = as_data(letters[0])
    click.echo(json.dumps(data, indent=2) if as_json else "\n".join(f"{name:11} {value}" for name, value in data.items()))


@command.command("redrive")
@click.argument("words", nargs=-1, metavar="[APP] [ID]...")
@app_option
@handler_option
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--json", "as_json", is_flag=True)
def redrive(words: tuple[str, ...], app: str | None, handlers: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Run dead letters again, as they came, by the handler they died in."""
    found, ids = _parts(words, app)
    _need_choice(ids, handlers, every)
    done = guarded(lambda: asyncio.run(_redrive(found, ids, handlers)))
    click.echo(json.dumps({"redriven": done.again, "refused": list(done.refused)}) if as_json else f"redriven {done.again}")
    if done.refused:
        raise Fail("\n".join(done.refused), USAGE)


@command.command("purge")
@click.argument("words", nargs=-1, metavar="[APP] [ID]...")
@app_option
@handler_option
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True)
def purge(words: tuple[str, ...], app: str | None, handlers: tuple[str, ...], every: bool, yes: bool, as_json: bool) -> None:
    """Forget dead letters for ever."""
    found, ids = _parts(words, app)
    _need_choice(ids, handlers, every)
    if not yes and not sys.stdin.isatty():
        raise Fail("'purge': expected --yes where nobody can be asked, got none. Add --yes.", USAGE)
    if not yes:
        click.confirm("Forget them for ever?", abort=True)
    count = guarded(lambda: asyncio.run(_purge(found, ids, handlers)))
    click.echo(json.dumps({"purged": count}) if as_json else f"purged {count}")


def _need_choice(ids: tuple[str, ...], handlers: tuple[str, ...], every: bool) -> None:
    if not (ids or handlers or every):
        raise click.UsageError("Say which: IDs, --handler NAME or --all.")


async def _letters(app: App, handlers: tuple[str, ...], limit: int, id: str | None = None) -> list[DeadLetter]:
    async with _inspectors(app) as inspectors:
        found = [one for inspector in inspectors for one in await inspector.dead(handlers=handlers or None, id=id, limit=limit)]
    return sorted(found, key=lambda one: one.died_at)[:limit]


async def _redrive(app: App, ids: tuple[str, ...], handlers: tuple[str, ...]) -> Redriven:
    again = 0
    refused: list[str] = []
    async with _inspectors(app) as inspectors:
        for inspector in inspectors:
            chosen = list(ids) or await _all_ids(inspector, handlers)
            with click.progressbar(length=len(chosen), label="redriven", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
                for start in range(0, len(chosen), PAGE):
                    done = await inspector.redrive(chosen[start : start + PAGE])
                    again, refused = again + done.again, [*refused, *done.refused]
                    bar.update(min(PAGE, len(chosen) - start))
    return Redriven(again, tuple(refused))


async def _purge(app: App, ids: tuple[str, ...], handlers: tuple[str, ...]) -> int:
    async with _inspectors(app) as inspectors:
        return sum([await one.purge(list(ids) or await _all_ids(one, handlers)) for one in inspectors])


async def _all_ids(inspector: Inspector, handlers: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    while page := await inspector.dead(handlers=handlers or None, limit=PAGE, after=found[-1] if found else ""):
        found += [one.id for one in page]
    return found


@asynccontextmanager
async def _inspectors(app: App) -> AsyncGenerator[list[Inspector]]:
    async with app:
        yield [engine.inspector for engine in app.bus().engines.all()]


def as_data(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as plain data; bytes that are no text are escaped."""
    return {
        "id": letter.id,
        "handler": letter.handler,
        "address": letter.address,
        "position": letter.position,
        "key": _text(letter.key),
        "headers": [[name, _text(value)] for name, value in letter.raw_headers],
        "body": _text(letter.body),
        "reason": letter.reason,
        "error_type": letter.error_type,
        "error": letter.error,
        "attempts": letter.attempts,
        "died_at": moment(letter.died_at).isoformat(),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _short(letter: DeadLetter) -> str:
    text = letter.reason if letter.error is None or letter.error in letter.reason else f"{letter.reason}: {letter.error_type}: {letter.error}"
    return " ".join(text.split())[:160]
