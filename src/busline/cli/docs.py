"""`busline docs`: an App as an AsyncAPI document."""

import json
from pathlib import Path
from typing import Any

import click

from busline.asyncapi import document, page
from busline.cli.fail import USAGE, Fail, guarded
from busline.cli.find import find
from busline.cli.http import encoded
from busline.core.errors import wrong


@click.command("docs")
@click.argument("app", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "yaml", "html"]),
    default="json",
    show_default=True,
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file."
)
@click.option(
    "--app-version",
    default="0.0.0",
    show_default=True,
    metavar="TEXT",
    help="The version that the document names.",
)
def command(app: str | None, form: str, output: Path | None, app_version: str) -> None:
    """Print what APP (module:app) reads and writes, as an AsyncAPI 3.1 document, or as a page.
    Opens no engine."""
    found = find(app)
    made = encoded(_written(guarded(lambda: document(found, version=app_version)), form))
    if output is None:
        click.echo(made, nl=False)
        return
    try:
        output.write_bytes(made)
    except OSError as error:
        raise Fail(
            wrong(
                output,
                "a file that can be written",
                error.strerror or str(error),
                "Name another with --output.",
            ),
            USAGE,
        ) from error


def _written(found: dict[str, Any], form: str) -> str:
    if form == "html":
        return page(found)
    if form == "json":
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise Fail(
            wrong(
                "yaml",
                "its library, an extra of busline",
                "no module 'yaml'",
                'Type: pip install "pybusline[yaml]"',
            ),
            USAGE,
        ) from error
    return str(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120))
