"""The two live subscriptions: one takes jobs, one reads partitions."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from busline.core.counts import Counts, tally
from busline.core.message import Delivery, Message
from busline.core.outcome import Acked, Outcome, Rejected
from busline.core.ports import Host, Subscription
from busline.transports.sqlite import jobs, topics
from busline.transports.sqlite.topics import Owned, Progress
from busline.transports.sqlite.wire import unpack

if TYPE_CHECKING:
    from busline.transports.sqlite import SqliteTransport

Settled = tuple[Delivery, Outcome]


class Receiving:
    """What both share: what is in hand, the event that wakes, the request that a cancelled call leaves behind."""

    def __init__(self, transport: "SqliteTransport", subscription: Subscription, host: Host) -> None:
        self.transport, self.subscription, self.host = transport, subscription, host
        self.held: dict[object, Delivery] = {}
        self.woken = asyncio.Event()
        self._asked: asyncio.Future[Any] | None = None
        self._settling = asyncio.Lock()

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
        except BaseException:
            self._asked = None
            raise
        self._asked = None
        return answer

    async def _sleep(self, due: float | None) -> None:
        clock = self.host.clock
        timer = None if due is None else clock.after(max(due - clock.time(), 0.0) + 0.0005, self.woken.set)
        try:
            await self.woken.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _split(self, settled: Sequence[Settled]) -> tuple[list[Settled], list[Delivery]]:
        held = self.held
        return [one for one in settled if one[0].receipt in held], [one[0] for one in settled if one[0].receipt not in held]

    def _drop(self, settled: Sequence[Settled]) -> None:
        for delivery, _ in settled:
            self.held.pop(delivery.receipt, None)


def numbers(settled: Sequence[Settled], refused: Sequence[Delivery]) -> dict[str, tuple[int, ...]]:
    """What a settle adds to the handlers' counts."""
    found = tally(settled)
    for delivery in refused:
        found.setdefault(delivery.handler, Counts()).refused += 1
    return {name: astuple(one) for name, one in found.items()}


class JobReceiver(Receiving):
    """Takes jobs from queues."""

    def __init__(self, transport: "SqliteTransport", subscription: Subscription, host: Host) -> None:
        super().__init__(transport, subscription, host)
        self._queues = [address.name for address in subscription.addresses]
        self._spare: list[Delivery] = []

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while not self._spare:
            claim = await self._answer(lambda: self._claim(limit))
            if claim.lost:
                await self.transport.lost()
            elif claim.deliveries:
                self.held.update((one.receipt, one) for one in claim.deliveries)
                self._spare = claim.deliveries
            else:
                await self._sleep(claim.due)
        taken, self._spare = self._spare[:limit], self._spare[limit:]
        return taken

    def _claim(self, limit: int) -> "asyncio.Future[Any]":
        process, now, queues = self.transport.process, self.host.clock.time(), self._queues
        return self.transport.file.ask_write(lambda db: jobs.claim(db, queues, limit, process.n, now))

    def forget(self) -> list[Delivery]:
        self._spare = []
        return super().forget()

    async def settle(self, settled: Sequence[Settled]) -> Sequence[Delivery]:
        ours, refused = self._split(settled)
        transport, now = self.transport, self.host.clock.time()
        queue = self._queues[0]
        queues = {one.receipt: queue for one, _ in ours}

        def apply(db: sqlite3.Connection) -> set[object]:
            late = jobs.settle(db, ours, transport.process.n, now, queues, transport.apply)
            counted = [one for one in ours if one[0].receipt not in late]
            topics.counted(db, numbers(counted, [*refused, *(one for one, _ in ours if one.receipt in late)]))
            return late

        late = await transport.file.write(apply) if settled else set()
        self._drop(ours)
        transport.settled(ours)
        return [*refused, *(one for one, _ in ours if one.receipt in late)]

    async def leave(self) -> None:
        if self._asked is not None:
            claim = await self._answer(lambda: self._claim(0))
            self.held.update((one.receipt, one) for one in claim.deliveries)
        owner = self.transport.process.n
        seqs = [one.receipt[0] for one in self.forget() if one.receipt[1] == owner]
        if seqs:
            await self.transport.file.write(lambda db: jobs.release(db, seqs, owner))


class LogReceiver(Receiving):
    """Reads the partitions of topics for a group, as long as no other process does."""

    def __init__(self, transport: "SqliteTransport", subscription: Subscription, host: Host) -> None:
        super().__init__(transport, subscription, host)
        self._owned: dict[str, Owned] = {}
        self._names = [address.name for address in subscription.addresses]
        self._group = subscription.group or ""

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while True:
            self.woken.clear()
            await self._take_over()
            if taken := await self._read(limit):
                return taken
            await self._sleep(None)

    async def _take_over(self) -> None:
        missing = [name for name in self._names if name not in self._owned]
        if missing:
            owner, group = self.transport.process.n, self._group
            found = await self._answer(lambda: self.transport.file.ask_write(lambda db: topics.take_over(db, group, missing, owner)))
            self._owned.update((one.name, one) for one in found)

    async def _read(self, limit: int) -> list[Delivery]:
        wants = self._wants(limit)
        if not wants:
            return []
        asked = [(owned.topic, part, owned.frontiers[part].next, room) for owned, part, room in wants]
        found = await self.transport.file.read(lambda db: topics.read(db, asked))
        taken: list[Delivery] = []
        for turn, ((owned, part, room), rows) in enumerate(zip(wants, found, strict=True)):
            if rows and self._owned.get(owned.name) is owned:
                others = any(found[turn + 1 :])
                left = limit - len(taken)
                share = (left + 1) // 2 if others else left  # while others wait, none takes more than half
                taken += self._hand_out(owned, part, rows, min(room, share))
        return taken

    def _wants(self, limit: int) -> list[tuple[Owned, int, int]]:
        found = []
        for owned in self._owned.values():
            for part, frontier in enumerate(owned.frontiers):
                room = min(limit, self.subscription.ahead - frontier.unfinished)
                if room > 0:
                    found.append((owned, part, room))
        return found

    def _hand_out(self, owned: Owned, part: int, rows: list[Any], room: int) -> list[Delivery]:
        frontier, order, name = owned.frontiers[part], self.subscription.order, owned.name
        known = frontier.next
        rows = [row for row in rows if row[0] >= known][:room]
        if not rows:
            return []
        wanted = set(frontier.wanted([row[0] for row in rows]))
        whole, taken = (name, part), []
        for seq, id, key, headers, at, body in rows:
            if seq in wanted:
                lane = whole if order == "partition" else (name, part, key) if order == "key" else None
                message = Message(id, body, unpack(headers) if headers else (), key, at)
                taken.append(Delivery(message, name, 1, f"{name}/{part}@{seq}", lane, (name, part, seq)))
        frontier.hand_out([one.receipt[2] for one in taken], rows[-1][0] + 1)
        self.held.update((one.receipt, one) for one in taken)
        return taken

    async def settle(self, settled: Sequence[Settled]) -> Sequence[Delivery]:
        async with self._settling:  # the frontier may move only between two
            ours, refused = self._split(settled)
            late: list[Delivery] = []
            for name in {one.receipt[0] for one, _ in ours}:
                late += await self._settle_topic(self._owned[name], [one for one in ours if one[0].receipt[0] == name])
            if refused:
                await self.transport.file.write(lambda db: topics.counted(db, numbers([], refused)))
            return [*refused, *late]

    async def _settle_topic(self, owned: Owned, settled: list[Settled]) -> list[Delivery]:
        finished: dict[int, list[int]] = {}
        for delivery, outcome in settled:
            if isinstance(outcome, Acked | Rejected):
                finished.setdefault(delivery.receipt[1], []).append(delivery.receipt[2])
        progress = [self._progress(owned, part, seqs) for part, seqs in finished.items()]
        transport, owner, now = self.transport, self.transport.process.n, self.host.clock.time()

        def apply(db: sqlite3.Connection) -> bool:
            if not topics.owns(db, owned.group, owner):
                return False
            self._effects(db, settled, now)
            topics.advance(db, owned.group, progress)
            topics.counted(db, numbers(settled, []))
            return True

        if not await transport.file.write(apply):
            await transport.lost()
            return [one for one, _ in settled]
        self._finish(owned, finished, progress)
        self._drop(settled)
        for delivery, outcome in settled:
            if not isinstance(outcome, Acked | Rejected):
                owned.frontiers[delivery.receipt[1]].rewind(delivery.receipt[2])
        transport.settled(settled)
        self.woken.set()
        return []

    def _progress(self, owned: Owned, part: int, seqs: list[int]) -> Progress:
        frontier, persisted = owned.frontiers[part], owned.persisted[part]
        low = frontier.with_finished(seqs)
        ahead = [seq for seq in (*seqs, *frontier.ahead) if seq >= low and seq not in persisted]
        return Progress(part, low, ahead, [seq for seq in persisted if seq < low])

    def _effects(self, db: sqlite3.Connection, settled: Sequence[Settled], now: float) -> None:
        for delivery, outcome in settled:
            if isinstance(outcome, Rejected):
                jobs.bury(db, delivery, outcome, f"~{self._group}", now)
            if isinstance(outcome, Acked | Rejected) and outcome.effects:
                self.transport.apply(db, outcome.effects, now)

    def _finish(self, owned: Owned, finished: dict[int, list[int]], progress: Sequence[Progress]) -> None:
        for one in progress:
            owned.frontiers[one.part].finish(finished[one.part])
            owned.persisted[one.part] |= set(one.ahead)
            owned.persisted[one.part] -= set(one.passed)

    def forget(self) -> list[Delivery]:
        self._owned.clear()
        return super().forget()

    async def leave(self) -> None:
        if self._asked is not None:
            await self._take_over()
        groups, owner = [one.group for one in self._owned.values()], self.transport.process.n
        self.forget()
        if groups:
            await self.transport.file.write(lambda db: topics.leave(db, groups, owner))
