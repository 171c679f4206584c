"""A bar on stderr, where a person looks at it."""

import sys
from collections.abc import Iterator
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
        return cast(
            AbstractContextManager[Bar],
            click.progressbar(length=length, label=label, file=sys.stderr),
        )
    unknown: Iterator[None] = (None for _ in ())
    bar = click.progressbar(unknown, label=label, file=sys.stderr, show_pos=True, show_eta=False)
    return cast(AbstractContextManager[Bar], bar)
