"""`busline dead`: what ended in the dead letters, and the way back."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from busline.app import App
from busline.cli.fail import FAILED, USAGE, Fail, guarded
from busline.cli.find import find, named_app
from busline.cli.progress import progress
from busline.core.clock import moment
from busline.core.errors import wrong
from busline.core.message import DeadLetter
from busline.core.ports import Inspector, Transport

PAGE = 500
EXCERPT = 160


@click.group("dead")
def command() -> None:
    """List, show, redrive or purge dead letters."""


app_option = click.option("--app", "app", metavar="MODULE:APP", help="The App; all words are then IDs.")
handler_option = click.option("--handler", "handlers", multiple=True, metavar="NAME", help="Of this subscriber or task. Repeatable.")
every_option = click.option("--all", "every", is_flag=True, help="All of them.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@command.command("list")
@click.argument("path", metavar="[APP]", required=False)
@app_option
@handler_option
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@json_option
def list_(path: str | None, app: str | None, handlers: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List dead letters, oldest first."""
    found = find(app or path)
    _check_handlers(found, handlers)
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
@json_option
def show(words: tuple[str, ...], app: str | None, as_json: bool) -> None:
    """Show one dead letter whole."""
    if len(words) not in (1, 2) or (app and len(words) == 2):
        raise click.UsageError("Expected one ID, with the App before it if none is configured.")
    found, id = find(app or (words[0] if len(words) == 2 else None)), words[-1]
    letters = guarded(lambda: asyncio.run(_letters(found, (), 1, id=id)))
    if not letters:
        raise Fail(_unknown(id), USAGE)
    data = as_data(letters[0])
    click.echo(json.dumps(data, indent=2) if as_json else "\n".join(f"{name:11} {value}" for name, value in data.items()))


@command.command("redrive")
@click.argument("words", nargs=-1, metavar="[APP] [ID]...")
@app_option
@handler_option
@every_option
@json_option
def redrive(words: tuple[str, ...], app: str | None, handlers: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Run dead letters again, as they came, by the handler they died in. Status 1 if some were refused."""
    found, chosen = _chosen(words, app, handlers, every)
    done = guarded(lambda: asyncio.run(_all(found, chosen, "redriven", _redrive)))
    click.echo(json.dumps({"redriven": done.count, "refused": done.refused}) if as_json else f"redriven {done.count}")
    _end(done, as_json)


@command.command("purge")
@click.argument("words", nargs=-1, metavar="[APP] [ID]...")
@app_option
@handler_option
@every_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(words: tuple[str, ...], app: str | None, handlers: tuple[str, ...], every: bool, yes: bool, as_json: bool) -> None:
    """Forget dead letters for ever. Asks first; without a terminal it needs --yes."""
    found, chosen = _chosen(words, app, handlers, every)
    if not yes and not sys.stdin.isatty():
        raise Fail(wrong("purge", "--yes where nobody can be asked", "no terminal", "Add --yes."), USAGE)
    if not yes:
        click.confirm(f"Forget {chosen} for ever?", abort=True, err=True)
    done = guarded(lambda: asyncio.run(_all(found, chosen, "purged", _purge)))
    click.echo(json.dumps({"purged": done.count, "refused": done.refused}) if as_json else f"purged {done.count}")
    _end(done, as_json)


# --- which ones ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chosen:
    """The letters that a command is about: by their ids, or all of some handlers, or all."""

    ids: tuple[str, ...]
    handlers: tuple[str, ...]

    def __str__(self) -> str:
        if self.ids:
            return f"{len(self.ids)} dead letter{'s' * (len(self.ids) > 1)}"
        return f"all dead letters{' of ' * bool(self.handlers)}{', '.join(self.handlers)}"


def _chosen(words: tuple[str, ...], app: str | None, handlers: tuple[str, ...], every: bool) -> tuple[App, Chosen]:
    path, ids = (words[0], words[1:]) if words and not app and named_app(words[0]) else (app, words)
    if bool(ids) + bool(handlers) + every != 1:
        raise click.UsageError("Say which, in one way: IDs, --handler NAME or --all.")
    found = find(path)
    _check_handlers(found, handlers)
    return found, Chosen(ids, handlers)


def _check_handlers(app: App, handlers: tuple[str, ...]) -> None:
    """A handler that the App no longer has may still have letters, so this is only said."""
    known = {one.full_name for one in app.all_subscribers()} | {task.name for task in app.all_tasks()}
    for name in handlers:
        if name not in known:
            click.echo(f"note: '{app.name}' has no handler '{name}' (it has {', '.join(sorted(known)) or 'none'})", err=True)


def _unknown(id: str) -> str:
    return wrong(id, "a dead letter's id", "one that is not there", "List them with `busline dead list`.")


# --- doing it --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Done:
    count: int = 0
    refused: list[str] = field(default_factory=list[str])


Act = Callable[[App, Transport, Sequence[str]], Awaitable[Done]]


async def _redrive(app: App, engine: Transport, ids: Sequence[str]) -> Done:
    done = await app.bus().redrive(engine, ids)
    return Done(done.again, list(done.refused))


async def _purge(app: App, engine: Transport, ids: Sequence[str]) -> Done:
    return Done(await engine.inspector.purge(ids))


async def _all(app: App, chosen: Chosen, label: str, act: Act) -> Done:
    done = Done()
    async with app:
        found = [(one, await _ids(one.inspector, chosen)) for one in app.bus().engines.all()]  # before: a redriven one may die again meanwhile
        known = {id for _, ids in found for id in ids}
        done.refused += [_unknown(id) for id in chosen.ids if id not in known]
        with progress(label, len(known)) as bar:
            for engine, ids in found:
                size = PAGE if engine.features.queues else max(len(ids), 1)  # those of records are read in one go
                for start in range(0, len(ids), size):
                    part = await act(app, engine, ids[start : start + size])
                    done.count, done.refused = done.count + part.count, done.refused + part.refused
                    bar.update(len(ids[start : start + size]))
    return done


async def _ids(inspector: Inspector, chosen: Chosen) -> list[str]:
    if chosen.ids:
        return [id for id in dict.fromkeys(chosen.ids) if await inspector.dead(id=id, limit=1)]
    return [one.id async for one in all_letters(inspector, chosen.handlers)]


async def all_letters(inspector: Inspector, handlers: Sequence[str] = ()) -> AsyncIterator[DeadLetter]:
    """Every dead letter, a page at a time."""
    last = ""
    while page := await inspector.dead(handlers=handlers or None, limit=PAGE, after=last):
        for one in page:
            yield one
        last = page[-1].id


async def _letters(app: App, handlers: tuple[str, ...], limit: int, id: str | None = None) -> list[DeadLetter]:
    async with app:
        engines = app.bus().engines.all()
        found = [one for engine in engines for one in await engine.inspector.dead(handlers=handlers or None, id=id, limit=limit)]
    return sorted(found, key=lambda one: one.died_at)[:limit]


def _end(done: Done, as_json: bool) -> None:
    if done.refused:
        raise Fail(f"refused {len(done.refused)}" if as_json else "\n".join(done.refused), FAILED)


# --- showing ---------------------------------------------------------------------------------------------------


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
        **({} if letter.missing is None else {"missing": letter.missing}),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _short(letter: DeadLetter) -> str:
    text = letter.reason if letter.error is None or letter.error in letter.reason else f"{letter.reason}: {letter.error_type}: {letter.error}"
    return " ".join(text.split())[:EXCERPT]
