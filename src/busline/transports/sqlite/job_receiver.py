"""Takes jobs from queues."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress

from busline.core.counts import tally_by
from busline.core.errors import Unavailable
from busline.core.message import Delivery
from busline.core.outcome import Settled
from busline.core.ports import Host, Subscription
from busline.transports.sqlite import jobs, strangers
from busline.transports.sqlite.jobs import Claim, Wanted, claim
from busline.transports.sqlite.receiving import Parts, Receiving


class JobReceiver(Receiving):
    """`_spare`: what was claimed, and not yet received."""

    def __init__(self, parts: Parts, subscription: Subscription, host: Host) -> None:
        super().__init__(parts, subscription, host)
        self.queues = [address.name for address in subscription.addresses]
        self._spare: list[Delivery] = []
        self._known_as = 0  # the number under which others see what this worker knows

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while not self._spare:
            claim = await self._answer(lambda: self._claim(limit))
            if claim.lost:
                await self.neighbours.lost()
            elif not self._take(claim):
                await self._sleep(claim.due)
        taken, self._spare = self._spare[:limit], self._spare[limit:]
        return taken

    def _claim(self, limit: int) -> "asyncio.Future[Claim]":
        session, now, queues = self.session, self.host.clock.time(), self.queues
        owner, tasks = session.process.n, self.subscription.tasks
        wanted = Wanted(
            queues,
            session.queues(),
            limit,
            self.subscription.batch_bytes,
            tasks,
            now - self.subscription.unknown_limit,
        )
        self.queues = [*queues[1:], *queues[:1]]  # the next claim begins with the next queue
        if tasks is None or self._known_as == owner:
            return session.file.ask_write(lambda db: claim(db, wanted, owner, now))

        def introduced(db: sqlite3.Connection) -> Claim:
            found = claim(db, wanted, owner, now)
            if not found.lost:
                strangers.introduce(db, owner, queues, tasks)
            return found

        return session.file.ask_write(introduced)

    def _take(self, claim: Claim) -> bool:
        """Whether it brought anything that is still ours."""
        self.session.withheld |= claim.withheld
        self._known_as = claim.owner
        for task, count in claim.met.items():
            self.host.unknown(task, count)
        if claim.met:
            self.session.wake()
        if claim.owner != self.session.process.n:
            # they were given back with the number they were claimed under: ask again
            return bool(claim.deliveries)
        self.held.update((one.receipt, one) for one in claim.deliveries)
        self._spare = claim.deliveries
        return bool(claim.deliveries)

    def forget(self) -> list[Delivery]:
        self._spare = []
        return super().forget()

    async def _settle(self, settled: Sequence[Settled]) -> Sequence[Delivery]:
        ours, refused = self._split(settled)
        session, now, owner = self.session, self.host.clock.time(), self.session.process.n

        def apply(db: sqlite3.Connection) -> set[object]:
            late = jobs.settle(db, ours, owner, now, self.effects.apply)
            applied = [one for one in ours if one[0].receipt not in late] if late else ours
            jobs.counted(
                db,
                tally_by(
                    jobs.queue_of,
                    applied,
                    [*refused, *(one for one, _ in ours if one.receipt in late)],
                ),
            )
            return late

        late = await session.file.write(apply) if settled else set()
        self._drop(ours)
        self.effects.on_applied(ours)
        if session.withheld:
            session.withheld = False
            session.wake_here()
        if late:
            await self.neighbours.look_lost()
        return [*refused, *(one for one, _ in ours if one.receipt in late)]

    async def leave(self) -> None:
        await self._ended()
        owner = self.session.process.n
        if self._asked is not None:
            with suppress(Unavailable):  # nothing was claimed
                self._take(await self._answer(lambda: self._claim(0)))
        seqs = [one.receipt[0] for one in self.forget() if one.receipt[1] == owner]
        if seqs or self._known_as:
            await self.session.patiently(lambda db: self._withdraw(db, seqs, owner))

    def _withdraw(self, db: sqlite3.Connection, seqs: Sequence[int], owner: int) -> None:
        strangers.leave(db, owner, self.queues)
        jobs.release(db, seqs, owner)
