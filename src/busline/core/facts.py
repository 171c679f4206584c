"""The facts that are kept of a job, and how they are written."""

import orjson

from busline.core.causes import Told, details
from busline.core.errors import JobFailed


def result_key(id: str) -> str:
    """Where a job's end is kept; `redrive.lua` and `look.lua` know it too. A redrive forgets it."""
    return f"result/{id}"


def success(encoded: bytes) -> bytes:
    """What a function returned: `+` and its JSON."""
    return b"+" + encoded


def failure(error: Told, reason: str, attempts: int) -> bytes:
    """Why a job died: `-` and [error type, text, attempts, and as text: causes and traceback]."""
    text = reason if error.error is None else error.error
    more = (error.details() or b"").decode()
    return b"-" + orjson.dumps([error.error_type or "Rejected", text, attempts, more])


def returned(kept: bytes) -> bytes:
    """The JSON of what a function returned. Raises JobFailed for a job that died."""
    if kept[:1] != b"-":
        return kept[1:]
    kind, text, attempts, *more = orjson.loads(kept[1:])
    raise JobFailed(kind, text, attempts, *details(*more[:1] or (None,)))
