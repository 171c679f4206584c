"""What a number, or a stretch of time, may be: judged where it is declared or called, never where
it is used."""

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from numbers import Real
from typing import Any, ParamSpec, Self, TypeVar

from busline.core.clock import seconds
from busline.core.errors import Invalid, excerpt, wrong

P = ParamSpec("P")
R = TypeVar("R")
CENTURY = 100 * 365 * 86_400.0
MOST = 1_000_000  # of anything that is counted


def duration(
    name: str,
    value: Any,
    *,
    zero: bool = True,
    remedy: str = "Leave it out for the default.",
    place: str = "",
) -> float:
    """Seconds as a float. Raises Invalid for what is no number of seconds, or timedelta, from 0 to
    a hundred years; `zero`: whether it may be 0."""
    if isinstance(value, timedelta) or _real(value):
        given = seconds(value)
        if 0 <= given <= CENTURY and (given or zero):
            return given
    least = "0 seconds or more" if zero else "more than 0 seconds"
    raise Invalid(
        wrong(name, f"{least}, a hundred years at most", excerpt(value), remedy, place=place)
    )


def _real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def duration_or_none(name: str, value: Any, **more: Any) -> float | None:
    """As `duration`; None where nothing was said."""
    return None if value is None else duration(name, value, **more)


def whole_or_none(name: str, value: Any, **more: Any) -> int | None:
    """As `whole`; None where nothing was said."""
    return None if value is None else whole(name, value, **more)


def whole(
    name: str, value: Any, *, remedy: str = "Leave it out for the default.", place: str = ""
) -> int:
    """A count. Raises Invalid for what is no whole number from 1 to a million."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST:
        return value
    raise Invalid(
        wrong(name, f"a whole number from 1 to {MOST}", excerpt(value), remedy, place=place)
    )


def factor(name: str, value: Any) -> float:
    """A finite number from 0. Raises Invalid for anything else."""
    if _real(value) and 0 <= value < math.inf:
        return float(value)
    raise Invalid(
        wrong(name, "a finite number, 0 or more", excerpt(value), "Leave it out for the default.")
    )


def kind(
    name: str, value: Any, kinds: type | tuple[type, ...], expected: str, *, place: str = ""
) -> None:
    """Raises Invalid for a value of another type; None stands for nothing said."""
    if value is not None and not isinstance(value, kinds):
        raise Invalid(
            wrong(name, expected, excerpt(value), "Give it one, or leave it out.", place=place)
        )


def word(name: str, value: Any, *, place: str = "") -> str | None:
    """A name. Raises Invalid for what is no text of 1 to 200 printable characters; None stands for
    nothing said."""
    if value is None or (isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()):
        return value
    raise Invalid(
        wrong(
            name,
            "1 to 200 printable characters",
            excerpt(value),
            "Give it a name, or leave it out.",
            place=place,
        )
    )


def one_of(name: str, value: Any, known: Sequence[str], *, place: str = "") -> None:
    """Raises Invalid for a word that is none of these."""
    if value not in known:
        remedy = "Leave it out for the first of them."
        raise Invalid(
            wrong(
                name, f"one of {', '.join(map(repr, known))}", excerpt(value), remedy, place=place
            )
        )


HEARD: ContextVar[Callable[[str], None] | None] = ContextVar("busline.heard", default=None)


class Mistakes:
    """What is wrong with one declaration, all of it together: left, it raises Invalid.

    `heard`: where somebody listens, as the command does that looks for those of all functions, it
    tells them instead."""

    def __init__(self, *, heard: bool = False) -> None:
        self.found: list[str] = []
        self._tell = HEARD.get() if heard else None

    def of(self, check: Callable[P, R], *args: P.args, **more: P.kwargs) -> R | None:
        """What a check gives back; None where it raised Invalid."""
        try:
            return check(*args, **more)
        except Invalid as error:
            self.found.append(str(error))
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.found:
            if self._tell is None:
                raise Invalid("\n".join(self.found))
            self._tell("\n".join(self.found))


def point(name: str, value: datetime) -> float:
    """A point in time as seconds since 1970; what is past is 1970 at the earliest. Raises Invalid
    for one without a time zone, or that is too far away to be meant."""
    if not isinstance(value, datetime):
        raise Invalid(
            wrong(
                name,
                "a datetime with a time zone",
                excerpt(value),
                "Write datetime.now(UTC) + timedelta(...).",
            )
        )
    if value.tzinfo is None:
        raise Invalid(
            wrong(
                name,
                "a datetime with a time zone",
                value.isoformat(),
                "Write datetime.now(UTC), or .astimezone().",
            )
        )
    try:
        return max(value.timestamp(), 0.0)
    except (OverflowError, ValueError) as error:
        raise Invalid(
            wrong(
                name,
                "a point in time that can be counted",
                value.isoformat(),
                "Choose a nearer one.",
            )
        ) from error
