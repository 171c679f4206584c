"""What both kinds of receivers do in one way.

What is `held` is ours until it is settled, forgotten or left. One `receive` at a time; `settle` may
be called by several, and each is one transaction. Between two awaits of theirs `held` may have lost
what was recalled: a commit counts for what the file says was still ours."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from busline.core.message import Delivery
from busline.core.outcome import Rejected, Settled, Settlement
from busline.core.ports import Host, Subscription
from busline.transports.sqlite.effects import Effects
from busline.transports.sqlite.jobs import Impossible
from busline.transports.sqlite.neighbours import Neighbours
from busline.transports.sqlite.session import Session

log = logging.getLogger("busline")


class Parts(NamedTuple):
    """What a receiver needs of its transport."""

    session: Session
    effects: Effects
    neighbours: Neighbours


class Receiving:
    """What both share: what is in hand, the event that wakes, the request that a cancelled call
    leaves behind."""

    def __init__(self, parts: Parts, subscription: Subscription, host: Host) -> None:
        self.session, self.effects, self.neighbours = parts
        self.subscription, self.host = subscription, host
        self.queues: list[str] = []
        self.held: dict[object, Delivery] = {}
        self.woken = asyncio.Event()
        self._asked: asyncio.Future[Any] | None = None
        self._settlings: set[asyncio.Task[Settlement]] = set()

    def forget(self) -> list[Delivery]:
        """What is in hand, which from now on is not ours."""
        gone = list(self.held.values())
        self.held.clear()
        return gone

    async def _answer(self, ask: Callable[[], "asyncio.Future[Any]"]) -> Any:
        """The answer to a request; a cancelled call leaves it to the next."""
        if self._asked is None:
            self.woken.clear()  # what wakes from now on is not in the answer
            self._asked = ask()
        try:
            answer = await asyncio.shield(self._asked)
        except asyncio.CancelledError:
            raise
        except BaseException:  # but a cancellation, which leaves the question to the next call
            self._asked = None
            raise
        self._asked = None
        return answer

    async def settle(self, settled: Sequence[Settled]) -> Settlement:
        """Goes on when the caller is cancelled: what is committed must be known here as well."""
        task = asyncio.get_running_loop().create_task(
            self._settle_possible(settled), name="busline sqlite settle"
        )
        self._settlings.add(task)
        task.add_done_callback(self._settled)
        return await asyncio.shield(task)

    def _settled(self, task: "asyncio.Task[Settlement]") -> None:
        self._settlings.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has heard of it, or is gone

    async def _settle_possible(self, settled: Sequence[Settled]) -> Settlement:
        rejected: list[tuple[Delivery, Rejected]] = []
        while True:
            try:
                return Settlement(await self._settle(settled), rejected)
            except Impossible as error:
                log.error(
                    "%r is put into the dead letters, for its sends cannot be done: %s",
                    error.delivery,
                    error,
                )
                rejected.append((error.delivery, error.instead))
                settled = [rejected[-1] if one[0] is error.delivery else one for one in settled]

    async def _settle(self, settled: Sequence[Settled]) -> Sequence[Delivery]:
        raise NotImplementedError

    async def _ended(self) -> None:
        """Waits for what is being settled."""
        if self._settlings:
            await asyncio.wait(self._settlings)

    async def _sleep(self, due: float | None) -> None:
        clock = self.host.clock
        timer = (
            None
            if due is None
            else clock.after(max(due - clock.time(), 0.0) + 0.0005, self.woken.set)
        )
        try:
            await self.woken.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _split(self, settled: Sequence[Settled]) -> tuple[list[Settled], list[Delivery]]:
        held = self.held
        return [one for one in settled if one[0].receipt in held], [
            one[0] for one in settled if one[0].receipt not in held
        ]

    def _drop(self, settled: Sequence[Settled]) -> None:
        for delivery, _ in settled:
            self.held.pop(delivery.receipt, None)
