"""The signals that end a run. They are this process's: a forked child gets the system's own
handlers back."""

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

SAME_SIGNAL = 1.0  # seconds in which a second one is the same, sent to parent and child
SIGNALS = (signal.SIGTERM, signal.SIGINT)
Handler = Callable[[int, FrameType | None], object]
_handlers: list[Handler] = []
_masks = threading.local()  # of the thread that forks


def handle(handler: Handler) -> None:
    """Calls it from now on, also while a function blocks the loop."""
    _handlers.append(handler)
    for one in SIGNALS:
        signal.signal(one, handler)


def listen(told: Callable[[bool], object]) -> None:
    """Calls it at the first signal, and with True at a second Ctrl-C."""
    before: list[float] = []  # when signals came

    def handler(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not before or now - before[-1] >= SAME_SIGNAL:
            hurry = bool(before) and number == signal.SIGINT
            before.append(now)
            told(hurry)

    handle(handler)


def _at_the_end() -> None:
    """Python takes its handlers back before the process is gone: a signal that came then would
    change its status."""
    for one in SIGNALS:
        if signal.getsignal(one) in _handlers:
            signal.signal(one, signal.SIG_IGN)


def _before_fork() -> None:
    """A signal that comes to the child at once waits there until its handlers are the right
    ones."""
    if _handlers:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _in_parent() -> None:
    if _handlers:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _in_child() -> None:
    if not _handlers:
        return
    signal.set_wakeup_fd(-1)  # it is the parent's loop that would hear
    for one, own in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(one) in _handlers:
            signal.signal(one, own)
    _handlers.clear()
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


atexit.register(_at_the_end)  # among the first, so that it runs after what others have registered
os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
