"""Writes docs/commands.md, the command's own words about itself: `python -m
tests.docs.commands`."""

from collections.abc import Iterator
from pathlib import Path

import click

from busline.cli import cli

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
HEAD = """# All commands

What each command says of itself with `--help`; [the command line](cli.md) explains it.
"""


def page() -> str:
    return "\n".join([HEAD, *_sections(cli, None, "busline")])


def _sections(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    told = click.Context(
        command,
        parent=parent,
        info_name=name.rpartition(" ")[2],
        max_content_width=100,
        terminal_width=100,
        **command.context_settings,
    )
    yield f"## {name}\n\n```text\n{command.get_help(told)}\n```\n"
    if isinstance(command, click.Group):
        for one in command.list_commands(told):
            found = command.get_command(told, one)
            if found is not None:
                yield from _sections(found, told, f"{name} {one}")


if __name__ == "__main__":
    PAGE.write_text(page())
