"""The thread that says, to the server, that this process lives: also while its loop is blocked. And
that looks after the dead."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from busline.core.ids import new_id
from busline.transports.redis.errors import translated
from busline.transports.redis.link import script
from busline.transports.redis.place import Place

log = logging.getLogger("busline")
SOON = 0.5  # real seconds before the next try, while the server does not answer
STEP = 1.0  # seconds by which the server's clock may go wrong from one beat to the next


class Lease(threading.Thread):
    """Beats for the workers of one transport. `lost` is called, in this thread, with each that is
    no longer known.

    `seconds` without a beat, real ones, and a worker is taken for dead. `connection`: the number
    under which the server knows the one that beats; it stays open as long as the process is there,
    frozen or not."""

    def __init__(
        self,
        place: Place,
        prefix: str,
        seconds: float,
        told: Callable[[], str],
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(name="busline redis lease", daemon=True)
        self.workers: set[str] = set()
        self.ms = round(seconds * 1000)
        self.connection = ""
        self._seconds, self._every = seconds, seconds / 5
        self._place = place
        self._link: Any = place.blocking()  # annotated in part
        self._prefix, self._told, self._lost = prefix, told, lost
        self._over = threading.Event()
        self._judges_from = 0.0
        self._ahead: float | None = None  # the server's clock, and it alone, may be set
        self._said = ""  # the trouble that was told last

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        judges = False  # the first time the others may have just come back as well
        while not self._over.is_set():
            pause = self._beaten(judges)
            judges = True
            self._over.wait(pause)
        self._link.disconnect()

    def _beaten(self, judges: bool) -> float:
        """Beats, and looks after the others. Returns the seconds until the next time."""
        try:
            self.beat()
            if judges:
                self.reap()
        except Exception as error:  # whatever it is, the lease must not end with this thread
            self._failed(error)
            return min(SOON, self._every)
        self._said = ""
        return self._every

    def _failed(self, error: Exception) -> None:
        """A server that is away is told by whoever works with it; anything else here, once."""
        self._link.disconnect()
        self.connection = ""
        self._ahead = None
        self._judges_from = time.monotonic() + 2 * self._every  # until the others have beaten again
        away = isinstance(error, RedisError | OSError) and not isinstance(
            error, ResponseError | AuthenticationError
        )
        if not away and str(error) != self._said:
            self._said = str(error)
            log.error(
                "this worker's lease is not renewed, which is tried again: %s",
                translated(error, self._place, self._prefix),
            )

    def beat(self) -> None:
        if not self.connection:
            self.connection = self._number()
        begun = time.monotonic()
        now, lost = self._run("beat", self.ms, self.connection, *sorted(self.workers))
        for worker in lost:
            self._lost(worker.decode())
        self._notice(now / 1000 - begun, time.monotonic() - begun)

    def _number(self) -> str:
        try:
            return str(self._ask("CLIENT", "ID"))
        # not allowed to this login: then whoever stands still is taken for dead
        except ResponseError:
            return "-"

    def _notice(self, ahead: float, took: float) -> None:
        """After a step of the server's clock all leases are wrong: nobody is judged until everyone
        has beaten again."""
        if self._ahead is not None and abs(ahead - self._ahead) > STEP + took:
            self._judges_from = time.monotonic() + self._seconds
        self._ahead = ahead

    def reap(self) -> None:
        """Gives back what those had in hand whose lease is over, worker by worker."""
        while time.monotonic() >= self._judges_from and not self._over.is_set():
            worker, connection = self._run("late", self.ms)
            if not worker:
                return
            died = not self._stands(connection)
            back, dead = self._run("reap", worker, int(died), self._told(), new_id())
            if back or dead:
                what = "a worker died" if died else "a worker stands still, or is cut off"
                log.warning(
                    "%s: %d job(s) that it had in hand run elsewhere, %d are in the dead letters",
                    what,
                    back,
                    dead,
                )

    def _stands(self, connection: bytes) -> bool:
        """Whether a worker's connection is open: then it did not die, whatever became of its
        lease."""
        try:
            return bool(connection) and bool(self._ask("CLIENT", "LIST", "ID", connection))
        except ResponseError:  # not allowed to this login
            return False

    def _run(self, name: str, *arguments: Any) -> Any:
        known = script(name)
        try:
            return self._ask("EVALSHA", known.hash, 1, self._prefix, *arguments)
        except NoScriptError:
            return self._ask("EVAL", known.text, 1, self._prefix, *arguments)

    def _ask(self, *command: Any) -> Any:
        self._link.send_command(*command)
        return self._link.read_response()
