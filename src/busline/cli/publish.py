"""`busline publish`: one value, or JSON lines from a file or stdin."""

import asyncio
import json
import os
import stat
import sys
import threading
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import FileIO
from typing import Any, TypeVar

import click

from busline.app import App
from busline.cli.enqueue import pair, reason
from busline.cli.fail import USAGE, Fail, guarded
from busline.cli.find import find
from busline.cli.progress import progress
from busline.core.errors import Invalid, Unavailable, wrong
from busline.core.message import Headers, Message, encode_headers
from busline.sends import recorder
from busline.topic import Topic

T = TypeVar("T")
READ = 64 * 1024
LINE_LIMIT = 4 * 1024 * 1024  # no accepted body is as long


@click.command("publish")
@click.argument("words", nargs=-1, metavar="[APP] TOPIC VALUE")
@click.option("--key", help="Instead of the topic's own key.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    words: tuple[str, ...], key: str | None, headers: tuple[str, ...], as_json: bool
) -> None:
    """Publish VALUE, JSON as the topic's model reads it, to TOPIC. `-` reads JSON lines from stdin,
    `@file` a file.

    A line that does not fit is named and left out, and the status is 2.
    """
    app, name, value = _words(words)
    done = guarded(lambda: asyncio.run(_publish(app, name, value, key, headers, quiet=as_json)))
    click.echo(
        json.dumps({"published": done.count, "refused": done.refused})
        if as_json
        else f"published {done.count}"
    )
    if done.refused:
        raise Fail(
            f"{len(done.refused)} of {done.count + len(done.refused)} lines were refused", USAGE
        )


def _words(words: tuple[str, ...]) -> tuple[App, str, str]:
    if len(words) == 3:
        return find(words[0]), words[1], words[2]
    # a topic's name has no colon: that is an App without a topic
    if len(words) != 2 or ":" in words[0]:
        raise click.UsageError(
            "Expected TOPIC and VALUE, with the App before them if none is configured."
        )
    return find(None), words[0], words[1]


async def _publish(
    app: App, name: str, value: str, key: str | None, headers: tuple[str, ...], *, quiet: bool
) -> "Publishing":
    topic = _topic(app, name)
    encoded = encode_headers(dict(pair(one) for one in headers))
    with ExitStack() as stack:
        lines = (
            None
            if value != "-" and not value.startswith("@")
            else stack.enter_context(_opened(value))
        )
        async with app:
            publishing = Publishing(app, topic, key, encoded, quiet)
            if lines is None:
                await publishing.one(value.encode("utf-8", "surrogateescape"))
            else:
                await publishing.all(lines)
    return publishing


def _topic(app: App, name: str) -> Topic[Any]:
    known = {topic.name: topic for topic in app.topics()}
    if name not in known:
        expected = f"a topic of '{app.name}' ({', '.join(sorted(known)) or 'none'})"
        raise Invalid(
            wrong(name, expected, "another", "Name it in a subscriber or in App(publishes=[...]).")
        )
    return known[name]


@dataclass(slots=True)
class Publishing:
    """What one command publishes. `refused`: the lines that did not fit, by their number."""

    app: App
    topic: Topic[Any]
    key: str | None
    headers: Headers
    quiet: bool
    count: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def one(self, text: bytes) -> None:
        await self.app.bus().send(self.topic.address, [self._message(text)])
        self.count = 1

    async def all(self, lines: FileIO) -> None:
        size = _size(lines)
        with progress("published", size) as bar:
            async for chunk in _chunks(lines):
                await self._send(chunk)
                bar.update(len(chunk) if size is None else sum(len(line) + 1 for _, line in chunk))

    async def _send(self, chunk: list[tuple[int, bytes]]) -> None:
        messages = [
            one
            for number, line in chunk
            if line.strip() and (one := self._fitting(number, line)) is not None
        ]
        try:
            if messages:
                await self.app.bus().send(self.topic.address, messages)
        except Unavailable as error:
            first, last = chunk[0][0], chunk[-1][0]
            raise Unavailable(
                f"{error} Published before: {self.count}. Unknown: the lines {first} to {last};"
                " begin again there."
            ) from error
        self.count += len(messages)

    def _fitting(self, number: int, line: bytes) -> Message | None:
        try:
            return self._message(line)
        except Invalid as error:
            self.refused.append({"line": number, "error": str(error)})
            if not self.quiet:
                click.echo(f"line {number}: {error}", err=True)
            return None

    def _message(self, text: bytes) -> Message:
        try:
            value = self.topic.codec.decode(text)
        except ValueError as error:
            raise Invalid(
                wrong(self.topic.name, "JSON that its model reads", reason(error), "Correct it.")
            ) from error
        message: Message = recorder(self.app.bus(), self.topic, self.headers)(value, self.key)
        return message


# --- reading ---------------------------------------------------------------------------------


def _opened(value: str) -> FileIO:
    if value == "-":
        return FileIO(sys.stdin.fileno(), closefd=False)
    try:
        return FileIO(value[1:])
    except OSError as error:
        raise Invalid(
            wrong(value[1:], "a file of JSON lines", error.strerror or "none", "Correct the path.")
        ) from error


def _size(lines: FileIO) -> int | None:
    """In bytes; None where nobody knows, as for a pipe."""
    found = os.fstat(lines.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


async def _chunks(lines: FileIO) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Numbered lines, as many as there are at once: a pipe that writes slowly is published as it
    writes."""
    number, rest = 0, b""
    while piece := await _beside(lambda: lines.read(READ)):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise Invalid(
                wrong(
                    f"line {number + len(whole) + 1}",
                    f"a line of at most {LINE_LIMIT} bytes",
                    "a longer one",
                    "Write one value a line.",
                )
            )
        if whole:
            yield _numbered(whole, number)
            number += len(whole)
    if rest:
        yield _numbered([rest], number)


def _numbered(lines: list[bytes], before: int) -> list[tuple[int, bytes]]:
    if before == 0:
        lines[0] = lines[0].removeprefix(BOM_UTF8)  # as editors and shells of Windows write it
    return list(enumerate(lines, before + 1))


def _beside(call: Callable[[], T]) -> asyncio.Future[T]:
    """What the call returns, from a daemon thread: a read that never ends does not keep the
    process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: OSError | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]  # no error: it is what the call returned

    def run() -> None:
        value, failed = None, None
        try:
            value = call()
        except OSError as error:
            failed = error
        loop.call_soon_threadsafe(deliver, value, failed)

    threading.Thread(target=run, daemon=True, name="busline read").start()
    return future
