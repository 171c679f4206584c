"""Being open: who opened an App, who has joined, and who closes it.

States: closed, opening, open. `enter` and `open` lead out of closed, the last `leave` back into it.
Between two awaits an owner that is not closed belongs to somebody who will leave it; in a forked
child there is none, whatever the parent has open.
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias
from weakref import WeakSet

from busline.core.errors import Invalid, wrong
from busline.runtime.bus import Bus
from busline.runtime.open import Consuming, Owner

Body: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


class Opening:
    """Of one App, called `name`. `bus`: while it is open. What is opened yields itself if it
    consumes."""

    def __init__(self, name: str) -> None:
        self.bus: Bus | None = None
        self._name = name
        self._owner: Owner | None = None
        self._entered = deque[Owner]()  # who leaves first leaves what was entered first
        self._consuming: Consuming | None = None

    def __repr__(self) -> str:
        return f"<Opening {self._name}: {'closed' if self._owner is None else 'open'}>"

    async def enter(self, body: Body) -> None:
        """Opens it, or joins those who have it open; it closes when the last of them has left."""
        owner = None
        while self._owner is not None and owner is None:
            owner = await self._join(self._owner)
        self._entered.append(owner or await self.open(body))

    async def leave(self) -> None:
        if self._entered:  # none in a forked child: what it has left is the parent's
            await self._leave(self._entered.popleft())

    async def open(self, body: Body) -> Owner:
        """Opens it. Raises Invalid where it is open, and what keeps it from opening."""
        self.refuse_second()
        owner = self._owner = Owner(body)
        _open_here.add(self)
        try:
            opened = await owner.open()
            self._consuming = opened if isinstance(opened, Consuming) else None
        except BaseException:  # a cancellation, too, leaves the App closed
            if self._owner is owner:
                self.forget()
            raise
        return owner

    async def close(self, owner: Owner) -> None:
        if self._owner is owner:
            self._owner = None
            _open_here.discard(self)
            await owner.close()

    async def ended(self) -> None:
        """Returns when something that it runs ended by itself."""
        if self._consuming is not None:
            await self._consuming.ended()

    def refuse_second(self) -> None:
        if self._owner is not None:
            raise Invalid(
                wrong(
                    self._name,
                    "an App that is closed",
                    "one that is open",
                    "Leave the other first; inside it, just use the App, or open it for sending.",
                )
            )

    async def _join(self, owner: Owner) -> Owner | None:
        """Holds open what somebody else opened; None where that came to nothing."""
        if not owner.is_of_this_loop():
            remedy = (
                "Use it in the loop that opened it; a test calls a web service by"
                " httpx.ASGITransport, for a TestClient has a loop of its own."
            )
            raise Invalid(
                wrong(
                    self._name, "an App of this event loop", "one that is open in another", remedy
                )
            )
        owner.holders += 1
        try:
            opened = await owner.opened()
        except BaseException:  # a cancellation, too, holds nothing open
            await self._leave(owner)
            raise
        if not opened and self._owner is owner:
            self.forget()
        return owner if opened else None

    async def _leave(self, owner: Owner) -> None:
        owner.holders -= 1
        if not owner.holders:
            await self.close(owner)

    def forget(self) -> None:
        """It is closed, whatever was open."""
        self._owner = self.bus = self._consuming = None
        _open_here.discard(self)

    def forked(self) -> list[object]:
        """In a child. Returns what the parent has."""
        theirs: list[object] = [self._owner, self.bus, self._consuming, *self._entered]
        self.forget()
        self._entered.clear()
        return theirs


_open_here: WeakSet[Opening] = WeakSet()
# kept: dropped, its connections would close themselves, in the loop that child and parent share
_of_parent: list[object] = []


def _in_forked_child() -> None:
    """What is open is the parent's, with its connections and threads: here each App is closed, and
    says so when it is used."""
    for opening in list(_open_here):
        _of_parent.extend(opening.forked())


os.register_at_fork(after_in_child=_in_forked_child)
