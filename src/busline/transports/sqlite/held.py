"""Open files whose locks end with this process. A forked child has them too, and would keep them
locked: it closes them."""

import os
import threading
from pathlib import Path

_held: set[int] = set()
_forking = threading.Lock()  # no fork falls between the opening of a file and the note of it


def hold(path: Path, flags: int) -> int:
    """Opens a file; returns its descriptor."""
    with _forking:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        _held.add(descriptor)
    return descriptor


def let_go(descriptor: int) -> None:
    with _forking:
        _held.discard(descriptor)
        os.close(descriptor)


def _in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
    _forking.release()


os.register_at_fork(
    before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_in_child
)
