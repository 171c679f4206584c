"""The end of a process that has run user code: in time, whatever a thread or the loop is stuck
in."""

import logging
import os
import signal
import sys
import threading
import time

LOOK = 0.2
LINGER = 0.5  # seconds for threads that are just ending


class Ending:
    """A thread beside the loop that ends the process at a given moment. It only ever reads numbers:
    a signal handler that took a lock could wait for itself."""

    def __init__(self) -> None:
        self.at, self.status = float("inf"), 0
        threading.Thread(target=self._watch, daemon=True, name="busline ending").start()

    def within(self, seconds: float, status: int) -> None:
        """The process ends with this status at the latest in so many seconds; sooner if that was
        said before."""
        if time.monotonic() + seconds < self.at:
            self.status, self.at = status, time.monotonic() + seconds

    def closing(self, seconds: float, status: int) -> None:
        """The work is over: what is left may take so many seconds, and does not change the
        status."""
        self.status, self.at = status, time.monotonic() + seconds

    def _watch(self) -> None:
        while time.monotonic() < self.at:
            time.sleep(LOOK)
        os.write(2, b"busline: something did not end in time, the process ends without it\n")
        _end(self.status)

    def leave(self, status: int) -> None:
        """Ends the process, also where a thread is stuck in a function that nothing can cut."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # the work is over: one that comes now would change the status
            signal.signal(number, signal.SIG_IGN)
        until = time.monotonic() + LINGER
        for thread in _others():
            thread.join(max(until - time.monotonic(), 0))
        if _others():
            logging.shutdown()
            _end(status)
        self.at = float("inf")  # what is left is Python's own end
        sys.exit(status)


def _others() -> list[threading.Thread]:
    return [
        one
        for one in threading.enumerate()
        if one is not threading.main_thread() and not one.daemon
    ]


def _end(status: int) -> None:
    # whoever is stuck may hold a stream's lock
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(1.0)
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
