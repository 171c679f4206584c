"""Reads the partitions of topics for a group, as long as no other process does."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from busline.core.address import redriven
from busline.core.counts import tally_in
from busline.core.errors import Unavailable
from busline.core.lanes import lane
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, Rejected, Settled
from busline.core.ports import Host, Subscription
from busline.transports.sqlite import jobs, topics
from busline.transports.sqlite.receiving import Parts, Receiving
from busline.transports.sqlite.topics import Owned, Progress, Step, take_over
from busline.transports.sqlite.wire import unpack


class LogReceiver(Receiving):
    """`_owned`: the topics that this process reads now, with their frontiers; a settle moves them,
    one at a time, and only after its commit."""

    def __init__(self, parts: Parts, subscription: Subscription, host: Host) -> None:
        super().__init__(parts, subscription, host)
        self._owned: dict[str, Owned] = {}
        self._group = subscription.group or ""
        self._home = redriven(self._group).name  # the queue of its dead that run again
        self._first = 0  # the partition that is read first changes from one read to the next
        self._settling = asyncio.Lock()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while True:
            self.woken.clear()
            await self._take_over()
            taken, more = await self._read(limit)
            if taken:
                return taken
            if not more:
                await self._sleep(None)

    async def _take_over(self) -> None:
        missing = [
            address for address in self.subscription.addresses if address.name not in self._owned
        ]
        if missing:
            owner, group, start = self.session.process.n, self._group, self.subscription.start
            found = await self._answer(
                lambda: self.session.file.ask_write(
                    lambda db: take_over(db, group, missing, start, owner)
                )
            )
            if found.owner is None:
                await self.neighbours.lost()
            elif found.owner == self.session.process.n:
                self._owned.update((one.name, one) for one in found.owned)

    async def _read(self, limit: int) -> tuple[list[Delivery], bool]:
        """What comes next, and whether there may be more when nothing did."""
        wants = self._wants(limit)
        if not wants:
            return [], False
        asked = [
            (owned.topic, part, owned.frontiers[part].next, room) for owned, part, room in wants
        ]
        found = await self.session.file.read(
            lambda db: topics.read(db, asked, limit, self.subscription.batch_bytes)
        )
        taken: list[Delivery] = []
        for (owned, part, _), (_, _, first, _), rows in zip(wants, asked, found, strict=True):
            # rewound meanwhile, or no longer ours: what was read is read again
            if (
                rows
                and self._owned.get(owned.name) is owned
                and owned.frontiers[part].next == first
            ):
                taken += self._hand_out(owned, part, rows)
        return taken, any(found)

    def _wants(self, limit: int) -> list[tuple[Owned, int, int]]:
        found = []
        for owned in self._owned.values():
            for part, frontier in enumerate(owned.frontiers):
                room = min(limit, self.subscription.ahead - frontier.unfinished)
                if room > 0:
                    found.append((owned, part, room))
        self._first += 1
        turn = self._first % max(len(found), 1)
        return [*found[turn:], *found[:turn]]

    def _hand_out(self, owned: Owned, part: int, rows: list[Any]) -> list[Delivery]:
        frontier, order, name = owned.frontiers[part], self.subscription.order, owned.name
        wanted = frontier.wanted([row[0] for row in rows])
        if len(wanted) != len(rows):
            left = set(wanted)
            upto, rows = rows[-1][0] + 1, [row for row in rows if row[0] in left]
        else:
            upto = rows[-1][0] + 1
        frontier.hand_out(wanted, upto)
        whole, place, taken = (name, part), f"{name}/{part}@", []
        for seq, id, key, headers, at, body in rows:
            message = Message(id, body, unpack(headers) if headers else (), key, at)
            own = lane(order, whole, key)
            taken.append(Delivery(message, name, 1, f"{place}{seq}", own, (name, part, seq)))
        self.held.update((one.receipt, one) for one in taken)
        return taken

    async def _settle(self, settled: Sequence[Settled]) -> Sequence[Delivery]:
        async with self._settling:  # the frontiers may move only between two
            ours, refused = self._split(settled)
            steps = self._steps(ours)
            session, owner, now = self.session, self.session.process.n, self.host.clock.time()

            def apply(db: sqlite3.Connection) -> bool:
                mine = all(topics.owns(db, step.owned.group, owner) for step in steps)
                if mine:
                    self._effects(db, ours, now)
                    for step in steps:
                        topics.advance(db, step.owned.group, step.progress)
                late = refused if mine else [*refused, *(one for one, _ in ours)]
                jobs.counted(db, tally_in(self._home, ours if mine else [], late))
                return mine

            if settled and not await session.file.write(apply):
                self.host.recall(self.forget())
                await self.neighbours.look_lost()
                return [*refused, *(one for one, _ in ours)]
            self._finish(ours, steps)
            return refused

    def _steps(self, settled: Sequence[Settled]) -> list[Step]:
        """What a settle writes, topic by topic."""
        finished: dict[str, dict[int, list[int]]] = {one.receipt[0]: {} for one, _ in settled}
        for delivery, outcome in settled:
            if outcome.final:
                name, part, seq = delivery.receipt
                finished[name].setdefault(part, []).append(seq)
        return [self._step(self._owned[name], parts) for name, parts in finished.items()]

    def _step(self, owned: Owned, parts: dict[int, list[int]]) -> Step:
        return Step(
            owned, parts, [self._progress(owned, part, seqs) for part, seqs in parts.items()]
        )

    def _progress(self, owned: Owned, part: int, seqs: list[int]) -> Progress:
        frontier, persisted = owned.frontiers[part], owned.persisted[part]
        low = frontier.with_finished(set(seqs))
        ahead = [seq for seq in (*seqs, *frontier.ahead) if seq >= low and seq not in persisted]
        return Progress(part, low, ahead, [seq for seq in persisted if seq < low])

    def _effects(self, db: sqlite3.Connection, settled: Sequence[Settled], now: float) -> None:
        for delivery, outcome in settled:
            if outcome is ACKED:
                continue
            if isinstance(outcome, Rejected):
                jobs.bury(db, delivery, outcome, self._home, now)
            if outcome.effects:
                self.effects.apply(db, delivery, outcome.effects, now)

    def _finish(self, settled: Sequence[Settled], steps: Sequence[Step]) -> None:
        """After the commit: the same in memory."""
        for step in steps:
            for one in step.progress:
                step.owned.frontiers[one.part].finish(step.finished[one.part])
                step.owned.persisted[one.part] |= set(one.ahead)
                step.owned.persisted[one.part] -= set(one.passed)
        self._drop(settled)
        for delivery, outcome in settled:
            if not outcome.final:
                name, part, seq = delivery.receipt
                if name in self._owned:
                    self._owned[name].frontiers[part].rewind(seq)
        self.effects.on_applied(settled)
        self.woken.set()

    def forget(self) -> list[Delivery]:
        self._owned.clear()
        return super().forget()

    async def leave(self) -> None:
        await self._ended()
        if self._asked is not None:
            with suppress(Unavailable):  # nothing was taken
                await self._take_over()
        groups, owner = [one.group for one in self._owned.values()], self.session.process.n
        self.forget()
        if groups:
            await self.session.patiently(lambda db: topics.leave(db, groups, owner))
