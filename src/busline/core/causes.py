"""All that an error says: its own text, what it came from, the errors of a group, and where it was
raised."""

import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from busline.core.codec import explain
from busline.core.errors import ERROR_LIMIT, Cause, Invalid, Reject, RetryLater, cut, text_of

MOST = 16  # causes
TEXT_LIMIT = 240  # bytes of one cause's text
LINE_LIMIT = 500  # characters of an error in a line of the log


class Told(NamedTuple):
    """An error as it is kept. `causes`: what it came from and the errors of a group, the nearest
    first."""

    error_type: str | None = None
    error: str | None = None
    causes: tuple[Cause, ...] = ()
    traceback: str | None = None

    def details(self) -> bytes | None:
        """Causes and traceback, as engines keep them; None where there is neither."""
        return (
            orjson.dumps([_plain(self.causes), self.traceback])
            if self.causes or self.traceback
            else None
        )


def details(kept: bytes | str | None) -> tuple[tuple[Cause, ...], str | None]:
    """Causes and traceback out of what an engine kept; none where there is nothing, or what nobody
    here wrote."""
    try:
        causes, where = orjson.loads(kept or b"")
        return tuple(Cause(str(kind), str(text)) for kind, text in causes), where
    except (ValueError, TypeError):
        return (), None


def described(error: BaseException, limit: int = ERROR_LIMIT) -> tuple[str, str]:
    """Type and text of an error, cut so that they always fit; of a model's own refusal without the
    values."""
    text = explain(error) if isinstance(error, ValidationError) else text_of(error)
    return type(error).__name__, cut(text, limit)


def told(error: BaseException | None) -> Told:
    """An error as dead letters and results keep it: causes and traceback together within 8 KiB."""
    if error is None:
        return Told()
    causes = causes_of(error)
    while (size := _size(_plain(causes))) > ERROR_LIMIT // 2:
        causes = causes[:-1]
    # 4: what is around both
    return Told(*described(error), causes, _ending(_traceback(error), ERROR_LIMIT - size - 4))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors that a group holds, at any depth; of any other error itself."""
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting += reversed(one.exceptions)
        else:
            yield one


def leaf(error: BaseException) -> BaseException:
    """The only error of a group; the same error where there are several, or it is no group."""
    first, *more = leaves(error)
    return error if more else first


def deciding(error: BaseException) -> BaseException:
    """Of several errors the one that decides: a Reject, else an Invalid, else the longest
    RetryLater, else all together."""
    every = tuple(leaves(error))
    for final in (Reject, Invalid):
        for one in every:
            if isinstance(one, final):
                return one
    later = [one for one in every if isinstance(one, RetryLater)]
    return max(later, key=lambda one: one.delay) if later else leaf(error)


def has_failed(error: BaseException) -> bool:
    """Whether it counts as a failed attempt: one that asks to come later does not, unless it says
    so."""
    decides = deciding(error)
    return not isinstance(decides, RetryLater) or decides.counted


def causes_of(error: BaseException) -> tuple[Cause, ...]:
    """What stands behind an error, the nearest first; a group among it is told by what it holds."""
    found: list[Cause] = []
    seen, waiting = {id(error)}, _behind(error)
    while waiting and len(found) < MOST:
        one = waiting.pop()
        if id(one) not in seen:  # errors may point at each other
            seen.add(id(one))
            waiting += _behind(one)
            if not isinstance(one, BaseExceptionGroup):
                found.append(Cause(*described(one, TEXT_LIMIT)))
    return tuple(found)


def _behind(error: BaseException) -> list[BaseException]:
    """What it was raised from, and before that, at the end, the errors of a group."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    own = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [*(() if cause is None else (cause,)), *reversed(own)]


def in_words(error: BaseException) -> str:
    """An error and its causes in one line."""
    own, *behind = map(str, (Cause(*described(error)), *causes_of(error)))
    return one_line(f"{own} (from {', from '.join(behind)})" if behind else own)


def one_line(text: str) -> str:
    """A text as a line of the log holds it."""
    line = " ".join(text.split())
    return line if len(line) <= LINE_LIMIT else f"{line[:LINE_LIMIT]}..."


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as trouble:  # errors of a user's own making may refuse to be looked at
        return f"<its traceback cannot be made: {type(trouble).__name__}>"


def _ending(text: str, room: int) -> str:
    """The end of a text, where the innermost call and the error stand, as far as there is room for
    it as JSON."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    if _size(clean) <= room:
        return clean
    end = clean[-room:]
    while _size(end) + 4 > room:
        end = end[len(end) // 8 + 1 :]
    return f"...\n{end}"


def _plain(causes: Sequence[Cause]) -> list[list[str]]:
    return [list(one) for one in causes]  # a tuple with names is nothing that orjson knows


def _size(kept: object) -> int:
    return len(orjson.dumps(kept))
