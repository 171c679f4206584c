"""The command line. Each command is a file; its imports wait until it is called."""

import importlib
import sys

import click

COMMANDS = {
    "run": "Run an App's subscribers and tasks.",
    "publish": "Publish values to a topic.",
    "enqueue": "Enqueue a job of a task.",
    "jobs": "Show a job.",
    "queues": "List queues, or forget the jobs of one.",
    "peek": "Show what stands in a queue, or at the end of a topic.",
    "inspect": "Show queues, groups, counts and dead letters.",
    "dead": "List, show, edit, redrive or purge dead letters.",
    "check": "Build the plan of an App, print it, and say everything that is wrong.",
    "docs": "Print the AsyncAPI document of an App.",
    "completion": "Print the shell's completion script.",
}
INTERNAL = 70


class Lazy(click.Group):
    """Loads a command's file when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"busline.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from busline import __version__

        click.echo(f"busline {__version__}")
        ctx.exit()


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Show the version.",
)
def cli() -> None:
    """Streams and jobs in one asyncio App.

    APP is `module:app`; BUSLINE_APP, or app under [tool.busline] in pyproject.toml, names the
    default.

    Exit status: 0 clean, 1 a job failed, 2 wrong use, 69 engine unreachable, 70 internal error, 130
    interrupted."""


def main() -> None:
    """Runs the command that the arguments name, and leaves with its status."""
    try:
        cli(prog_name="busline")
    except Exception:  # an error of ours: its traceback, and the status that says so
        import traceback

        traceback.print_exc()
        sys.exit(INTERNAL)


if __name__ == "__main__":
    main()
