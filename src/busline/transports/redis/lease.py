"""The thread that says, to the server, that this process lives: also while its loop is blocked. And that looks after the dead."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from busline.core.ids import new_id
from busline.transports.redis.link import script
from busline.transports.redis.place import Place

log = logging.getLogger("busline")
SOON = 0.5  # real seconds before the next try, while the server does not answer


class Lease(threading.Thread):
    """Beats for the workers of one transport. `lost` is called, in this thread, with each that is no longer known.

    `seconds` without a beat, real ones, and a worker is taken for dead.
    """

    def __init__(self, place: Place, prefix: str, seconds: float, now: Callable[[], float], lost: Callable[[str], None]) -> None:
        super().__init__(name="busline redis lease", daemon=True)
        self.workers: set[str] = set()
        self.ms = round(seconds * 1000)
        self._every = seconds / 5
        self._connection: Any = place.blocking()  # annotated in part
        self._prefix, self._now, self._lost = prefix, now, lost
        self._over = threading.Event()
        self._judges_from = 0.0

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        pause = self._every
        while not self._over.wait(pause):
            try:
                self.beat()
                self.reap()
                pause = self._every
            except (RedisError, OSError):  # whoever works with the server says so
                self._connection.disconnect()
                self._judges_from = time.monotonic() + 2 * self._every  # until the others have beaten again
                pause = min(SOON, self._every)
        self._connection.disconnect()

    def beat(self) -> None:
        workers = sorted(self.workers)
        if workers:
            for lost in self._run("beat", self.ms, *workers):
                self._lost(lost.decode())

    def reap(self) -> None:
        """Gives back what the dead had in hand, worker by worker."""
        while time.monotonic() >= self._judges_from and not self._over.is_set():
            worker, back, dead, _ = self._run("reap", repr(self._now()), new_id())
            if not worker:
                return
            if back or dead:
                log.warning("a worker died or stood still: %d job(s) that it had in hand run elsewhere, %d are in the dead letters", back, dead)

    def _run(self, name: str, *arguments: Any) -> Any:
        known = script(name)
        try:
            return self._ask("EVALSHA", known.hash, 1, self._prefix, *arguments)
        except NoScriptError:
            return self._ask("EVAL", known.text, 1, self._prefix, *arguments)

    def _ask(self, *command: Any) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()
