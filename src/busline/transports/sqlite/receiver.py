"""The two live subscriptions: one takes jobs, one reads partitions."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from busline.core.address import redriven
from busline.core.counts import tally_by, tally_in
from busline.core.errors import Unavailable
from busline.core.lanes import lane
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, Rejected, Settled, Settlement
from busline.core.ports import Host, Subscription
from busline.transports.sqlite import jobs, strangers, topics
from busline.transports.sqlite.jobs import Claim, Impossible, Wanted, claim
from busline.transports.sqlite.topics import Owned, Progress, Step, take_over
from busline.transports.sqlite.wire import unpack

if TYPE_CHECKING:
    from busline.transports.sqlite import SqliteTransport

log = logging.getLogger("busline")


class Receiving:
    """What both share: what is in hand, the event that wakes, the request that a cancelled call
    leaves behind."""

    def __init__(
        self, transport: "SqliteTransport", subscription: Subscription, host: Host
    ) -> None:
        self.transport, self.subscription, self.host = transport, subscription, host
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


class JobReceiver(Receiving):
    """Takes jobs from queues."""

    def __init__(
        self, transport: "SqliteTransport", subscription: Subscription, host: Host
    ) -> None:
        super().__init__(transport, subscription, host)
        self.queues = [address.name for address in subscription.addresses]
        self._spare: list[Delivery] = []
        self._known_as = 0  # the number under which others see what this worker knows

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while not self._spare:
            claim = await self._answer(lambda: self._claim(limit))
            if claim.lost:
                await self.transport.lost()
            elif not self._take(claim):
                await self._sleep(claim.due)
        taken, self._spare = self._spare[:limit], self._spare[limit:]
        return taken

    def _claim(self, limit: int) -> "asyncio.Future[Claim]":
        transport, now, queues = self.transport, self.host.clock.time(), self.queues
        owner, tasks = transport.process.n, self.subscription.tasks
        wanted = Wanted(
            queues,
            transport.queues(),
            limit,
            self.subscription.batch_bytes,
            tasks,
            now - self.subscription.unknown_limit,
        )
        self.queues = [*queues[1:], *queues[:1]]  # the next claim begins with the next queue
        if tasks is None or self._known_as == owner:
            return transport.file.ask_write(lambda db: claim(db, wanted, owner, now))

        def introduced(db: sqlite3.Connection) -> Claim:
            found = claim(db, wanted, owner, now)
            if not found.lost:
                strangers.introduce(db, owner, queues, tasks)
            return found

        return transport.file.ask_write(introduced)

    def _take(self, claim: Claim) -> bool:
        """Whether it brought anything that is still ours."""
        self.transport.withheld |= claim.withheld
        self._known_as = claim.owner
        for task, count in claim.met.items():
            self.host.unknown(task, count)
        if claim.met:
            self.transport.wake()
        if claim.owner != self.transport.process.n:
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
        transport, now, owner = self.transport, self.host.clock.time(), self.transport.process.n

        def apply(db: sqlite3.Connection) -> set[object]:
            late = jobs.settle(db, ours, owner, now, transport.apply)
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

        late = await transport.file.write(apply) if settled else set()
        self._drop(ours)
        transport.settled(ours)
        if transport.withheld:
            transport.withheld = False
            transport.wake_here()
        if late:
            await transport.look_lost()
        return [*refused, *(one for one, _ in ours if one.receipt in late)]

    async def leave(self) -> None:
        await self._ended()
        owner = self.transport.process.n
        if self._asked is not None:
            with suppress(Unavailable):  # nothing was claimed
                self._take(await self._answer(lambda: self._claim(0)))
        seqs = [one.receipt[0] for one in self.forget() if one.receipt[1] == owner]
        if seqs or self._known_as:
            await self.transport.patiently(lambda db: self._withdraw(db, seqs, owner))

    def _withdraw(self, db: sqlite3.Connection, seqs: Sequence[int], owner: int) -> None:
        strangers.leave(db, owner, self.queues)
        jobs.release(db, seqs, owner)


class LogReceiver(Receiving):
    """Reads the partitions of topics for a group, as long as no other process does."""

    def __init__(
        self, transport: "SqliteTransport", subscription: Subscription, host: Host
    ) -> None:
        super().__init__(transport, subscription, host)
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
            owner, group, start = self.transport.process.n, self._group, self.subscription.start
            found = await self._answer(
                lambda: self.transport.file.ask_write(
                    lambda db: take_over(db, group, missing, start, owner)
                )
            )
            if found.owner is None:
                await self.transport.lost()
            elif found.owner == self.transport.process.n:
                self._owned.update((one.name, one) for one in found.owned)

    async def _read(self, limit: int) -> tuple[list[Delivery], bool]:
        """What comes next, and whether there may be more when nothing did."""
        wants = self._wants(limit)
        if not wants:
            return [], False
        asked = [
            (owned.topic, part, owned.frontiers[part].next, room) for owned, part, room in wants
        ]
        found = await self.transport.file.read(
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
            transport, owner, now = self.transport, self.transport.process.n, self.host.clock.time()

            def apply(db: sqlite3.Connection) -> bool:
                mine = all(topics.owns(db, step.owned.group, owner) for step in steps)
                if mine:
                    self._effects(db, ours, now)
                    for step in steps:
                        topics.advance(db, step.owned.group, step.progress)
                late = refused if mine else [*refused, *(one for one, _ in ours)]
                jobs.counted(db, tally_in(self._home, ours if mine else [], late))
                return mine

            if settled and not await transport.file.write(apply):
                self.host.recall(self.forget())
                await transport.look_lost()
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
                self.transport.apply(db, delivery, outcome.effects, now)

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
        self.transport.settled(settled)
        self.woken.set()

    def forget(self) -> list[Delivery]:
        self._owned.clear()
        return super().forget()

    async def leave(self) -> None:
        await self._ended()
        if self._asked is not None:
            with suppress(Unavailable):  # nothing was taken
                await self._take_over()
        groups, owner = [one.group for one in self._owned.values()], self.transport.process.n
        self.forget()
        if groups:
            await self.transport.patiently(lambda db: topics.leave(db, groups, owner))
