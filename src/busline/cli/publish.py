"""`busline publish`: one value, or JSON lines from a file or stdin."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from busline.app import App
from busline.cli.find import USAGE, Fail, guarded, split_app
from busline.core.errors import Invalid, wrong
from busline.core.message import Message, encode_headers, encode_key
from busline.topic import Topic

CHUNK = 1000


@click.command("publish")
@click.argument("words", nargs=-1, metavar="[APP] TOPIC VALUE")
@click.option("--key", help="Instead of the topic's own key.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the count as JSON.")
def command(words: tuple[str, ...], key: str | None, headers: tuple[str, ...], as_json: bool) -> None:
    """Publish VALUE, JSON as the topic's model reads it, to TOPIC. `-` reads JSON lines from stdin, `@file` from a file.

    A line that does not fit is named and left out, and the status is 2.
    """
    app, rest = split_app(words, "TOPIC VALUE")
    if len(rest) != 2:
        raise click.UsageError("Expected TOPIC and VALUE.")
    published, bad = guarded(lambda: asyncio.run(_publish(app, rest[0], rest[1], key, headers)))
    click.echo(json.dumps({"published": published, "refused": len(bad)}) if as_json else f"published {published}")
    if bad:
        raise Fail("\n".join(bad[:20]) + (f"\nand {len(bad) - 20} more" if len(bad) > 20 else ""), USAGE)


async def _publish(app: App, name: str, value: str, key: str | None, headers: tuple[str, ...]) -> tuple[int, list[str]]:
    topic = _topic(app, name)
    encoded = encode_headers(dict(_pair(one) for one in headers))
    many = value == "-" or value.startswith("@")
    bad: list[str] = []
    count = 0
    async with app:
        with _progress(many) as bar:
            for chunk in _chunks(value, many):
                messages = [one for number, line in chunk if (one := _message(app, topic, number if many else 0, line, key, encoded, bad)) is not None]
                if messages:
                    await app.bus().send(topic.address, messages)
                count += len(messages)
                bar.update(len(chunk))
    return count, bad


def _topic(app: App, name: str) -> Topic[Any]:
    known = {topic.name: topic for topic in app.topics()}
    if name not in known:
        raise Invalid(
            wrong(name, f"a topic of '{app.name}' ({', '.join(sorted(known)) or 'none'})", "another", "Name it in a subscriber or in App(publishes=[...]).")
        )
    return known[name]


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise Invalid(wrong(text, "NAME=VALUE", "no '='", "Write --header name=value."))
    return name, value


def _message(app: App, topic: Topic[Any], number: int, line: str, key: str | None, headers: Any, bad: list[str]) -> Message | None:
    try:
        try:
            value = topic.codec.decode(line.encode("utf-8", "surrogateescape"))
        except ValueError as error:
            raise Invalid(wrong(topic.name, "JSON that its model reads", reason(error), "Correct it.")) from error
        encoded = encode_key(topic.key_of(value, key))
        topic.check_key(encoded)
        return app.bus().message(topic.codec.encode(value), key=encoded, headers=headers)
    except Invalid as error:
        if not number:
            raise
        bad.append(f"line {number}: {error}")
        return None


def reason(error: ValueError) -> str:
    from pydantic import ValidationError

    from busline.core.codec import explain

    return explain(error) if isinstance(error, ValidationError) else str(error)


def _chunks(value: str, many: bool) -> Iterator[list[tuple[int, str]]]:
    if not many:
        yield [(1, value)]
        return
    lines = sys.stdin if value == "-" else _lines(Path(value[1:]))
    chunk: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            chunk.append((number, line))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            yield from file
    except OSError as error:
        raise Invalid(wrong(path, "a file of JSON lines", error.strerror or "none", "Correct the path.")) from error


class _Silent:
    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, _: int) -> None: ...


def _progress(many: bool) -> Any:
    if not many or not sys.stderr.isatty():
        return _Silent()
    return click.progressbar(length=0, label="published", file=sys.stderr, show_pos=True, show_eta=False, show_percent=False)
