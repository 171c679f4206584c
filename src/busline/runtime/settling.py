"""The settling: what finished is settled in groups; what cannot be settled now waits by itself,
with its partition."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence, Set
from contextvars import copy_context
from typing import Any

from busline.core.clock import Clock
from busline.core.errors import BuslineError, cut
from busline.core.message import Delivery
from busline.core.outcome import ACKED, Rejected, Settled, Settlement, weight
from busline.core.ports import Receiver
from busline.runtime.elsewhere import Elsewhere
from busline.runtime.outage import AWAY, Outage
from busline.runtime.work import Work

log = logging.getLogger("busline")
GROUP = 100  # settled together: more brings no more speed
GROUP_BYTES = 4 * 1024 * 1024  # nor do larger groups; one outcome alone may be larger


Done = Callable[[Sequence[Settled], Settlement], None]
Failed = Callable[[BaseException], None]
Leaving = Callable[[int], None]


class Settling:
    """Groups are settled one after the other. Outcomes whose effects take a way of their own
    (another engine, or an engine that does not apply both in one step) hold nobody up: each
    partition's go beside the groups.

    `done` hears of each group, and what the engine made of it; `leaving` of how many begin to be
    settled in a group that nothing holds up, and (less than 0) that they no longer are; `failed` of
    what ends the settling for good. `tasks`: what is under way. `receiver` is set before
    anything finishes."""

    receiver: Receiver

    def __init__(
        self,
        work: Work,
        elsewhere: Elsewhere,
        clock: Clock,
        away: dict[str, str],
        done: Done,
        failed: Failed,
        leaving: Leaving,
    ) -> None:
        self._name, self._elsewhere, self._clock, self._away = work.name, elsewhere, clock, away
        self._done, self._failed, self._leaving = done, failed, leaving
        self._context = copy_context()  # not that of the function which finished
        self._finished: list[Settled] = []
        self._waiting: dict[str, list[Settled]] = {}  # what cannot be settled now, by where
        self.tasks: set[asyncio.Task[Any]] = set()
        self._grouping = self._over = False

    def __repr__(self) -> str:
        return (
            f"<Settling {self._name}: {len(self._finished)} finished, waiting at"
            f" {len(self._waiting)} places>"
        )

    @property
    def busy(self) -> bool:
        return bool(self._finished or self.tasks)

    def add(self, finished: Settled) -> None:
        """It is settled at once if no group is under way, else with the next one."""
        self._finished.append(finished)
        if not (self._grouping or self._over):
            self._grouping = True
            self._start(self._settle())

    def forget(self, receipts: Set[object]) -> list[Settled]:
        """Those of them that wait are no longer ours. Returns them."""
        gone: list[Settled] = []
        for place, batch in self._waiting.items():
            gone += [one for one in batch if one[0].receipt in receipts]
            self._waiting[place] = [one for one in batch if one[0].receipt not in receipts]
        return gone

    async def stop(self) -> None:
        """What is not settled by now runs again."""
        self._over = True
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    # --- groups ------------------------------------------------------------------------------

    def _start(self, settling: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(
            settling, name=f"busline settle {self._name}", context=self._context
        )
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._over = True
            self._failed(error)

    async def _settle(self) -> None:
        try:
            while self._finished:
                await self._gather()
                count = fitting(self._finished)
                group, self._finished = self._finished[:count], self._finished[count:]
                await self._try_quick(self._quick(group))
        finally:
            self._grouping = False

    async def _try_quick(self, group: Sequence[Settled]) -> None:
        self._leaving(len(group))
        try:
            await self._try(group)
        finally:
            self._leaving(-len(group))

    async def _gather(self) -> None:
        """Lets those who finish in the next turns of the loop come along, as long as each turn
        brings some."""
        count = 0
        while count < len(self._finished) < GROUP:
            count = len(self._finished)
            await asyncio.sleep(0)

    def _quick(self, group: Sequence[Settled]) -> Sequence[Settled]:
        """Those of a group that nothing can hold up. The others begin a way of their own, or join
        those that wait."""
        apart, waiting = self._elsewhere.apart, self._waiting
        quick: list[Settled] = []
        slow: dict[str, list[Settled]] = {}
        for settled in group:
            delivery, outcome = settled
            if waiting and (place := delivery.partition) in waiting:
                waiting[place].append(settled)
            elif outcome is not ACKED and apart(outcome):
                slow.setdefault(delivery.partition, []).append(settled)
            else:
                quick.append(settled)
        for batch in slow.values():
            self._start(self._try(batch))
        return quick

    async def _try(self, group: Sequence[Settled]) -> BuslineError | None:
        """Settles what can be settled now; the rest waits. Returns what a part of it waits for."""
        left, waiting = await self._elsewhere.confirm(group)
        for settled, place, error in waiting:
            self._wait(place, settled, error)
        try:
            settlement = await self._settled(left)
        except AWAY as error:
            for settled in left:
                self._wait(settled[0].partition, settled, error)
            return error
        if left:
            self._done(left, settlement)
        return waiting[0][2] if waiting else None

    async def _settled(self, group: Sequence[Settled]) -> Settlement:
        """Settles a group; where that fails, each by itself: one that can never be settled is dead,
        the others are not."""
        try:
            return await self.receiver.settle(group) if group else Settlement()
        except AWAY:
            raise
        except Exception as error:  # whatever an engine makes of an outcome that it cannot write
            if len(group) == 1:
                return await self._bury(group[0][0], error)
        parts = [await self._settled([settled]) for settled in group]
        return Settlement(
            [one for part in parts for one in part.refused],
            [one for part in parts for one in part.rejected],
        )

    async def _bury(self, delivery: Delivery, error: Exception) -> Settlement:
        dead = delivery, Rejected(cut(f"its outcome cannot be written: {error}"), error)
        refused, _ = await self.receiver.settle([dead])
        return Settlement(refused, [dead])

    # --- what waits --------------------------------------------------------------------------

    def _wait(self, place: str, settled: Settled, error: BuslineError) -> None:
        if place in self._waiting:
            self._waiting[place].append(settled)
        else:
            self._waiting[place] = [settled]
            self._start(self._again(place, error))

    async def _again(self, place: str, error: BuslineError | None) -> None:
        """Settles what waits here, again and again, until none of it is left."""
        outage = Outage(
            f"{self._name} {place}".strip(), self._away, "what finished is settled again"
        )
        while self._waiting[place]:
            if error is not None:
                await self._clock.sleep(outage.again(error))
            batch = self._waiting[place]
            count = fitting(batch)
            self._waiting[place] = batch[count:]
            error = await self._try(batch[:count])
        del self._waiting[place]
        outage.over()


def fitting(batch: Sequence[Settled]) -> int:
    """How many of them make one group."""
    size = 0
    for count, (delivery, outcome) in enumerate(batch[:GROUP]):
        if outcome is ACKED:
            continue
        size += weight(delivery, outcome)
        if size > GROUP_BYTES and count:
            return count
    return min(len(batch), GROUP)
