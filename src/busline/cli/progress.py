"""A bar on stderr, where a person looks at it."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

import click


class Bar(Protocol):
    def update(self, n_steps: int) -> None: ...


class Silent:
    def update(self, n_steps: int) -> None: ...


def progress(label: str, length: int | None) -> AbstractContextManager[Bar]:
    """A bar of so many steps; without a length it only counts."""
    if not sys.stderr.isatty():
        return nullcontext(Silent())
    if length is not None:
        bar = click.progressbar(length=length, label=label, file=sys.stderr)
    else:
        bar = click.progressbar((one for one in ()), label=label, file=sys.stderr, show_pos=True, show_eta=False)
    return cast(AbstractContextManager[Bar], bar)
