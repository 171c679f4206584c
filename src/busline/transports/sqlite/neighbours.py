"""The other processes that have the file open: they are heard, and looked after when they die.

This process has a number, or was taken for dead and is about to get another; then everything that
was in hand is recalled. Only `lost` and a look change the number, one at a time: whoever awaits
anything here may find another one afterwards."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from busline.core.clock import Timer
from busline.core.errors import BuslineError, Unavailable
from busline.transports.sqlite import jobs
from busline.transports.sqlite.facts import SqliteStore
from busline.transports.sqlite.process import remove
from busline.transports.sqlite.session import Session

log = logging.getLogger("busline")
LOOK = 1.0  # seconds from one look to the next


class Neighbours:
    """`lease`: seconds after which a process that does not move is taken for dead."""

    def __init__(self, session: Session, store: SqliteStore, lease: float) -> None:
        self._session, self._store = session, store
        self.lease = lease
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None
        self._ear = -1  # the pipe that the loop listens to
        self._closing = False
        self._renewing = asyncio.Lock()

    async def begin(self) -> None:
        """Takes a number, and looks once: this process may be the only one, and killed again before
        the next look. Raises Unavailable."""
        self._closing, self._renewing = False, asyncio.Lock()
        await self._session.patiently(self._session.process.register)
        with suppress(BuslineError, OSError):  # then the first look does it
            await self._look_for_dead()
        self._listen()
        self._look_later()

    async def rest(self) -> None:
        """No look begins any more, and none is on its way."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            await asyncio.wait((self._looking,))

    # --- hearing -----------------------------------------------------------------------------

    def _listen(self) -> None:
        self._ear = self._session.process.pipe
        asyncio.get_running_loop().add_reader(self._ear, self._on_word)

    def deafen(self) -> None:
        if self._ear >= 0:
            asyncio.get_running_loop().remove_reader(self._ear)
            self._ear = -1

    def _on_word(self) -> None:
        if self._ear >= 0:
            self._session.process.drain()
        self._session.wake_here()
        self._store.look_again()

    # --- looking, once a second --------------------------------------------------------------

    def _look_later(self) -> None:
        if not self._closing:
            self._timer = self._session.clock.after(LOOK, self._start_looking)

    def _start_looking(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(
            self._look_around(), name="busline sqlite look"
        )

    async def _look_around(self) -> None:
        with suppress(BuslineError, OSError):  # whoever works with the file says so
            if self._session.file.replaced():
                await self._take_other_file()
            await self.look()
        self._on_word()
        self._look_later()

    async def look(self) -> None:
        """Clears away what dead processes had in hand, and facts whose time is over."""
        await self._look_for_dead()
        await self._store.expire(self._session.clock.time())

    async def _look_for_dead(self) -> None:
        process = self._session.process
        others = await self._session.file.read(
            lambda db: [row[0] for row in db.execute("SELECT n FROM worker")]
        )
        if process.n not in others:
            await self.lost()
        dead = process.dead([n for n in others if n != process.n], self.lease)
        if dead:
            await self._clear_away(dead)

    async def _clear_away(self, dead: Mapping[int, bool]) -> None:
        now = self._session.clock.time()
        freed = await self._session.file.write(lambda db: jobs.free_all(db, dead, now))
        for n in dead:
            remove(self._session.process.folder, n)
        for n in freed:
            how = "died" if dead[n] else "stands still"
            log.warning("took over what process %d had in hand, which %s", n, how)
        self._session.wake()

    # --- another number ----------------------------------------------------------------------

    async def look_lost(self) -> None:
        """As `lost`, for one who need not wait: the next look does it if the file is locked now."""
        with suppress(Unavailable):
            await self.lost()

    async def lost(self) -> None:
        """Goes on under a new number if this process was taken for dead: what it has in hand is
        others' then."""
        async with self._renewing:
            n = self._session.process.n
            if await self._session.file.read(lambda db: jobs.alive(db, n)):
                return
            log.warning(
                "this process stood still for too long and was taken for dead: what it had in hand"
                " runs elsewhere"
            )
            self._session.disown()
            self.deafen()
            await self._renew()

    async def _take_other_file(self) -> None:
        """Goes on with the file that is at the path now. What is in hand was the other's: here it
        has another number."""
        file, process = self._session.file, self._session.process
        async with self._renewing:
            log.warning(
                "%s: another file is there now: what was in hand is the other's, and it goes on"
                " with this one",
                file.path,
            )
            await file.close()
            self._session.disown()
            self.deafen()
            process.close()
            await file.open()
            await self._renew()

    async def _renew(self) -> None:
        await self._session.file.write(self._session.process.register)
        self._listen()
        self._session.wake_here()
