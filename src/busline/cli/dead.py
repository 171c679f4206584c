"""`busline dead`: what ended in the dead letters, and the way back."""

import asyncio
import json
import sys
from typing import Any

import click

from busline.app import App
from busline.cli.ask import can_ask
from busline.cli.choice import (
    Choice,
    Chosen,
    choose,
    foreign,
    perform,
    to_purge,
    to_redrive,
    unknown_id,
)
from busline.cli.choice import purge as choice_purge
from busline.cli.choice import redrive as choice_redrive
from busline.cli.fail import FAILED, USAGE, Fail, guarded
from busline.cli.find import find, named_app
from busline.cli.places import reader_of, refusal
from busline.cli.table import readable, short, table
from busline.core.clock import moment, stamp
from busline.core.errors import Invalid, excerpt, wrong
from busline.core.message import DeadLetter
from busline.core.ports import Redriven


@click.group("dead")
def command() -> None:
    """List, show, edit, redrive or purge dead letters."""


app_option = click.option(
    "--app", "app", metavar="MODULE:APP", help="The App; all words are then IDs."
)
handler_option = click.option(
    "--handler",
    "handlers",
    multiple=True,
    metavar="NAME",
    help="Of this subscriber or task. Repeatable.",
)
every_option = click.option("--all", "every", is_flag=True, help="All that its handlers left.")
all_apps_option = click.option(
    "--all-apps", is_flag=True, help="Those of other Apps on the same engines, too."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@command.command("list")
@click.argument("path", metavar="[APP]", required=False)
@app_option
@handler_option
@all_apps_option
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@json_option
def list_(
    path: str | None,
    app: str | None,
    handlers: tuple[str, ...],
    all_apps: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List the App's dead letters, oldest first."""
    found = find(app or path)
    _check_handlers(found, handlers)
    letters = guarded(
        lambda: asyncio.run(_listed(found, Chosen(handlers=handlers, all_apps=all_apps), limit + 1))
    )
    letters, more = letters[:limit], len(letters) > limit
    if as_json:
        click.echo(json.dumps([as_data(one) for one in letters], indent=2))
        return
    click.echo(
        "\n".join(table([_row(one, all_apps) for one in letters])) if letters else "no dead letters"
    )
    if more:
        click.echo(f"note: the first {limit}; there are more, which --limit shows", err=True)


@command.command("show")
@click.argument("words", nargs=-1, metavar="[APP] ID")
@app_option
@all_apps_option
@json_option
def show(words: tuple[str, ...], app: str | None, all_apps: bool, as_json: bool) -> None:
    """Show one dead letter whole."""
    if len(words) not in (1, 2) or (app and len(words) == 2):
        raise click.UsageError("Expected one ID, with the App before it if none is configured.")
    found, id = find(app or (words[0] if len(words) == 2 else None)), words[-1]
    letter = guarded(lambda: asyncio.run(_one(found, id)))
    if letter is None:
        raise Fail(unknown_id(id), USAGE)
    if not all_apps and letter.served not in found.serves():
        raise Fail(foreign(found.name, letter, "Add --all-apps to see it."), USAGE)
    data = as_data(letter)
    click.echo(json.dumps(data, indent=2) if as_json else as_text(data))


@command.command("edit")
@click.argument("words", nargs=-1, metavar="[APP] ID [BODY]")
@app_option
@json_option
def edit(words: tuple[str, ...], app: str | None, as_json: bool) -> None:
    """Give a dead letter another BODY, `-` for stdin: its handler has to be able to read it.
    Redrive it then.

    Without BODY an editor is opened, where there is a terminal.
    """
    path, words = (
        (words[0], words[1:]) if words and not app and named_app(words[0]) else (app, words)
    )
    if len(words) not in (1, 2):
        raise click.UsageError(
            "Expected one ID and a BODY, with the App before them if none is configured."
        )
    found, id = find(path), words[0]
    letter = _own(found, id)
    given = words[1] if len(words) == 2 else _edited(readable(letter.body) or "")
    body = (
        sys.stdin.buffer.read().rstrip(b"\n")
        if given == "-"
        else given.encode("utf-8", "surrogateescape")
    )
    guarded(lambda: _check_body(found, letter, body))
    if not guarded(lambda: asyncio.run(_mended(found, id, body))):
        raise Fail(unknown_id(id), USAGE)
    click.echo(json.dumps({"edited": id}) if as_json else f"edited {id}")


@command.command("redrive")
@click.argument("words", nargs=-1, metavar="[APP] [ID]...")
@app_option
@handler_option
@every_option
@all_apps_option
@json_option
def redrive(
    words: tuple[str, ...],
    app: str | None,
    handlers: tuple[str, ...],
    every: bool,
    all_apps: bool,
    as_json: bool,
) -> None:
    """Run dead letters again, as they came, by the handler they died in. Status 1 if some were
    refused."""
    found, chosen = _chosen(words, app, handlers, every, all_apps)
    choice = guarded(lambda: asyncio.run(choose(found, chosen, to_redrive)))
    _say_left(found, choice)
    done = guarded(lambda: asyncio.run(perform(found, choice, "redriven", choice_redrive)))
    _end("redriven", done, as_json)


@command.command("purge")
@click.argument("words", nargs=-1, metavar="[APP] [ID]...")
@app_option
@handler_option
@every_option
@all_apps_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(
    words: tuple[str, ...],
    app: str | None,
    handlers: tuple[str, ...],
    every: bool,
    all_apps: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Forget dead letters for ever. Asks first; without a terminal it needs --yes."""
    found, chosen = _chosen(words, app, handlers, every, all_apps)
    if not yes and not can_ask():
        raise Fail(
            wrong("purge", "--yes where nobody can be asked", "no terminal", "Add --yes."), USAGE
        )
    choice = guarded(lambda: asyncio.run(choose(found, chosen, to_purge)))
    _say_left(found, choice)
    if choice.count and not yes:
        click.confirm(f"Forget {choice} for ever?", abort=True, err=True)
    done = guarded(lambda: asyncio.run(perform(found, choice, "purged", choice_purge)))
    _end("purged", done, as_json)


# --- editing ---------------------------------------------------------------------------------


def _own(app: App, id: str) -> DeadLetter:
    letter = guarded(lambda: asyncio.run(_one(app, id)))
    if letter is None:
        raise Fail(unknown_id(id), USAGE)
    if letter.served not in app.serves():
        raise Fail(foreign(app.name, letter, "Use the App that has it."), USAGE)
    return letter


def _edited(body: str) -> str:
    text = click.edit(body, extension=".json") if can_ask() else None
    if text is None:
        raise Fail(
            wrong(
                "edit", "another body", "none", "Write it behind the id, or save it in the editor."
            ),
            USAGE,
        )
    return text.rstrip("\n")


def _check_body(app: App, letter: DeadLetter, body: bytes) -> None:
    read = reader_of(app, letter)
    if read is None:
        got = f"one of '{letter.handler}'"
        raise Invalid(
            wrong(
                letter.id,
                f"a letter of a handler that '{app.name}' has",
                got,
                "Use the App that has it.",
            )
        )
    if (why := refusal(read, body)) is not None:
        got = f"{excerpt(body)} ({why})"
        raise Invalid(
            wrong("body", f"what '{letter.handler}' takes", got, "Correct it. Nothing was changed.")
        )


async def _mended(app: App, id: str, body: bytes) -> bool:
    async with app:
        for engine in await app.bus().every_engine():
            if await engine.inspector.mend(id, body):
                return True
    return False


# --- which ones ------------------------------------------------------------------------------


def _chosen(
    words: tuple[str, ...], app: str | None, handlers: tuple[str, ...], every: bool, all_apps: bool
) -> tuple[App, Chosen]:
    path, ids = (words[0], words[1:]) if words and not app and named_app(words[0]) else (app, words)
    if bool(ids) + bool(handlers) + every != 1:
        raise click.UsageError("Say which, in one way: IDs, --handler NAME or --all.")
    if every and all_apps:
        raise click.UsageError(
            "--all is for the App's own: of others name handlers, with --handler NAME --all-apps,"
            " or IDs."
        )
    found = find(path)
    _check_handlers(found, handlers)
    return found, Chosen(ids, handlers, all_apps)


def _check_handlers(app: App, handlers: tuple[str, ...]) -> None:
    """A handler that the App no longer has may still have letters, so this is only said."""
    known = app.serves().names()
    for name in handlers:
        if name not in known:
            click.echo(
                f"note: '{app.name}' has no handler '{name}' (it has"
                f" {', '.join(sorted(known)) or 'none'})",
                err=True,
            )


def _say_left(app: App, choice: Choice) -> None:
    for (served, handler), count in choice.left.items():
        remedy = (
            "Name their ids." if handler in app.serves().names() else "Name them with --handler."
        )
        click.echo(
            f"note: {count} of '{handler}' ({served}) stay: '{app.name}' has no such handler there."
            f" {remedy}",
            err=True,
        )


async def _listed(app: App, chosen: Chosen, limit: int) -> list[DeadLetter]:
    async with app:
        served = None if chosen.all_apps else app.serves()
        engines = await app.bus().every_engine()
        found = [
            one
            for engine in engines
            for one in await engine.inspector.dead(
                served=served, handlers=chosen.handlers or None, limit=limit
            )
        ]
    return sorted(found, key=lambda one: one.died_at)[:limit]


async def _one(app: App, id: str) -> DeadLetter | None:
    async with app:
        found = [
            one
            for engine in await app.bus().every_engine()
            for one in await engine.inspector.dead(id=id, limit=1)
        ]
    return found[0] if found else None


def _end(what: str, done: Redriven, as_json: bool) -> None:
    click.echo(
        json.dumps({what: done.again, "refused": done.refused})
        if as_json
        else f"{what} {done.again}"
    )
    if done.refused:
        raise Fail(f"refused {len(done.refused)}" if as_json else "\n".join(done.refused), FAILED)


# --- showing ---------------------------------------------------------------------------------


def as_data(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as plain data; bytes that are no text are escaped."""
    return {
        "id": letter.id,
        "handler": letter.handler,
        "address": letter.address,
        "group": letter.group,
        "position": letter.position,
        "key": readable(letter.key),
        "headers": [[name, readable(value)] for name, value in letter.raw_headers],
        "body": readable(letter.body),
        "reason": letter.reason,
        "error_type": letter.error_type,
        "error": letter.error,
        "causes": [one._asdict() for one in letter.causes],
        "traceback": letter.traceback,
        "attempts": letter.attempts,
        "died_at": moment(letter.died_at).isoformat(),
        **({} if letter.missing is None else {"missing": letter.missing}),
    }


def as_text(data: dict[str, Any]) -> str:
    """One line for each thing; the causes, and the traceback at the end, have lines of their
    own."""
    lines = [
        f"{name:11} {value}"
        for name, value in data.items()
        if name not in ("causes", "traceback", "died_at")
    ]
    lines += [f"{'from':11} {one['error_type']}: {one['error']}" for one in data["causes"]]
    lines.append(f"{'died_at':11} {data['died_at']}")
    return "\n".join([*lines, *(["", data["traceback"].rstrip()] if data["traceback"] else [])])


def _stood(letter: DeadLetter, all_apps: bool) -> str:
    stood = letter.position or letter.address
    return f"{stood} of {letter.group}" if all_apps and letter.group is not None else stood


def _row(letter: DeadLetter, all_apps: bool) -> dict[str, str]:
    told = letter.error is None or letter.error in letter.reason
    reason = letter.reason if told else f"{letter.reason}: {letter.error_type}: {letter.error}"
    row = {"id": letter.id, "died": stamp(letter.died_at), "handler": letter.handler}
    return row | {"where": _stood(letter, all_apps), "reason": short(reason)}
