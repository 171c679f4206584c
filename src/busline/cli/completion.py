"""`busline completion`: the script that completes commands in a shell."""

import click
from click.shell_completion import get_completion_class

from busline.cli import cli


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script: `eval "$(busline completion bash)"`."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "busline", "_BUSLINE_COMPLETE").source())
