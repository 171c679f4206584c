"""The pages know every command, option and error; their links lead somewhere; their programs
compile or run."""

import fcntl
import re
import sqlite3
from pathlib import Path
from shlex import split
from types import ModuleType

import click
import pytest

import busline.core.signature
import busline.testing
import busline.transports.sqlite.errors
from busline import App, BuslineError
from busline.app import Setting
from busline.cli import COMMANDS, cli
from busline.runtime.engines import Engines
from busline.testing.contract import OneEngine, Queues, Topics
from busline.transports.sqlite import SqliteTransport
from tests.docs.commands import PAGE, page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.glob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "examples").rglob("README.md"),
    ]
)
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
LINK_TEXT = re.compile(r"\[([^]]*)\]\([^)]*\)")
FENCE = re.compile(r"^```(\w+)$", re.MULTILINE)
KINDS = {
    "python",
    "sh",
    "text",
    "yaml",
    "toml",
    "ini",
    "dockerfile",
    "console",
    "py",
}  # the last two are not run
MODULES: list[ModuleType] = [
    busline.core.signature,
    busline.testing,
    busline.transports.sqlite.errors,
]


def blocks(page: Path, kind: str) -> list[str]:
    """The blocks of one kind on a page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def errors(kind: type[BuslineError]) -> list[type[BuslineError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in errors(child))]


def commands(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    context = click.Context(command)
    return [
        one
        for name in command.list_commands(context)
        if (child := command.get_command(context, name))
        for one in commands(child)
    ]


def test_every_error_is_explained() -> None:
    text = (DOCS / "errors.md").read_text()
    names = {one.__name__ for one in errors(BuslineError) if one.__module__.startswith("busline.")}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_every_command_and_option_is_explained() -> None:
    text = (DOCS / "cli.md").read_text()
    options = {
        option
        for one in commands(cli)
        for parameter in one.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    assert [word for word in [*COMMANDS, *sorted(options)] if word not in text] == []


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tests.docs.commands"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in headings(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_so(page: Path) -> None:
    """Commands for servers and other machines have a prompt; those of busline are at least
    understood."""
    assert set(FENCE.findall(page.read_text())) <= KINDS
    for line in "".join(blocks(page, "console")).splitlines():
        assert line.startswith("$ ")
        words = [
            word
            for word in split(line, comments=True)
            if word not in ("$", "&", "export") and not word.startswith(("BUSLINE_", "TRACES="))
        ]
        if words[:1] == ["busline"]:
            understood(words[1:])


def understood(words: list[str]) -> None:
    """Raises UsageError for a command or an option that is not there."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, words
        command = found
    command.make_context(command.name, words)


def headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).strip().replace(" ", "-") for one in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_compile(page: Path) -> None:
    for text in [*blocks(page, "python"), *blocks(page, "py")]:
        compile(text, page.name, "exec", flags=0x2000)  # top-level await


async def test_another_program_enqueues_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs of the page about the file, as they stand there."""
    writes, reads = blocks(DOCS / "sqlite.md", "python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".busline").mkdir()
    app = App("shop")
    engine = SqliteTransport(tmp_path / ".busline" / "bus.db")

    @app.task
    async def send_receipt(email: str, cents: int) -> str:
        return f"sent to {email}"

    async with app.running_with(Setting(Engines(engine, engine))):
        names: dict[str, object] = {"sqlite3": sqlite3, "fcntl": fcntl}
        exec(writes, names)
        assert await send_receipt.job(str(names["id"])).result(10) == "sent to a@b.c"
        exec(reads, names)
        assert names["result"] == "sent to a@b.c"


def test_the_numbers_of_contract_tests_are_true() -> None:
    one, queues, topics = (
        sum(name.startswith("test_") for name in dir(part)) for part in (OneEngine, Queues, Topics)
    )

    assert (
        f"memory {one}, SQLite {one}, Redis {queues}, Kafka {topics}."
        in (ROOT / "docs" / "engines.md").read_text()
    )


def test_the_guarantees_are_the_same_wherever_they_stand() -> None:
    short, whole = rows(ROOT / "README.md"), rows(DOCS / "guarantees.md")
    assert short == whole[: len(short)] and len(short) == 13


def rows(page: Path) -> list[str]:
    return [
        LINK_TEXT.sub(r"\1", line)
        for line in page.read_text().splitlines()
        if line.startswith("| ")
    ]
