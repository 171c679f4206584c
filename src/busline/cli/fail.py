"""How a command ends that did not do what was asked: a text on stderr and an exit status."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from busline.core.errors import BuslineError, ConfigError, Invalid, JobFailed, NoResult, Unavailable

T = TypeVar("T")
FAILED, USAGE, UNREACHABLE, INTERNAL, INTERRUPTED = 1, 2, 69, 70, 130


class Fail(click.ClickException):
    """An error text and the status to leave with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # pyright: ignore  # click asks the instance
        return self.status

    def show(self, file: Any = None) -> None:
        click.echo(self.format_message(), file=file or sys.stderr)


def guarded(call: Callable[[], T]) -> T:
    """What the call returns; busline's errors become texts and statuses."""
    try:
        return call()
    except BuslineError as error:
        raise Fail(str(error), status_of(error)) from error
    except KeyboardInterrupt as error:
        raise Fail("interrupted", INTERRUPTED) from error


def status_of(error: BuslineError) -> int:
    if isinstance(error, Unavailable):
        return UNREACHABLE
    if isinstance(error, JobFailed):
        return FAILED
    return USAGE if isinstance(error, ConfigError | Invalid | NoResult) else INTERNAL
