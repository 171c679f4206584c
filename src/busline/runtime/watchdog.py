"""The thread beside the loop: it names what blocks it."""

import asyncio
import logging
import sys
import threading
import time
import traceback
from types import FrameType

log = logging.getLogger("busline")
LOOK = 1.0  # seconds between two looks: a loop that does not answer for as long is blocked


class Watchdog:
    """While it is entered, a loop that stops answering is logged once, with the function that holds
    it."""

    def __init__(self, look: float = LOOK) -> None:
        self._look = look
        self._left = threading.Event()
        self._answered = threading.Event()

    def __enter__(self) -> "Watchdog":
        loop = asyncio.get_running_loop()
        threading.Thread(
            target=self._watch,
            args=(loop, threading.get_ident()),
            name="busline watchdog",
            daemon=True,
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()  # nobody waits for the thread: it ends with its next look

    def _watch(self, loop: asyncio.AbstractEventLoop, ident: int) -> None:
        while not self._left.wait(self._look):
            self._answered.clear()
            try:
                loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._answered.wait(self._look):
                self._blocked(loop, ident)

    def _blocked(self, loop: asyncio.AbstractEventLoop, ident: int) -> None:
        name, begun = _held_by(loop, ident), time.monotonic() - self._look
        log.warning(
            "%s blocks the event loop: nothing else runs meanwhile. Await, or write a plain def,"
            " which runs in a thread.",
            name,
        )
        while not self._answered.wait(self._look) and not self._left.is_set():
            pass
        log.warning("%s blocked the event loop for %.1f s", name, time.monotonic() - begun)


def _held_by(loop: asyncio.AbstractEventLoop, ident: int) -> str:
    """The running task, and the line it is at."""
    task = asyncio.current_task(loop)
    name = "a callback" if task is None else f"'{task.get_name()}'"
    frame = sys._current_frames().get(ident)
    return name if frame is None else f"{name} ({_where(frame)})"


def _where(frame: FrameType) -> str:
    last = traceback.extract_stack(frame, limit=1)[-1]
    return f"{last.filename}:{last.lineno} in {last.name}"
