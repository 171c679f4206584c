"""Our place in a group: what we are assigned is adopted, what stays goes on, what is taken away is
finished first."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka import errors as kafka

from busline.core.errors import cut, wrong
from busline.core.ports import Host, Subscription
from busline.transports.kafka import client, lenient
from busline.transports.kafka.admin import Admin
from busline.transports.kafka.assignor import NOBODY, KeepingAssignor
from busline.transports.kafka.beginning import Beginning, Beginnings, Stored
from busline.transports.kafka.committer import Committer, Membership
from busline.transports.kafka.diagnosis import explain, told, translated
from busline.transports.kafka.fetched import Fetched, end_of, go_on_with
from busline.transports.kafka.tracker import Tracker

log = logging.getLogger("busline")
HEARTBEAT = 1.0
COMMIT = 4.0  # seconds the last commit of a process may take
LOOK = 0.25  # seconds between looks whether the group still waits for us while we drain
FETCH_WAIT = (
    0.1  # seconds a fetch waits for news: a partition that is not part of it is asked for after it
)
AGAIN = 0.5


class Limits:
    """How many seconds a member may be silent; its functions may end in before their partitions
    move; what they did may wait for the cluster. And how far it may run beyond a record that is not
    finished."""

    def __init__(self, session: float, drain: float, patience: float, span: int) -> None:
        self.session, self.drain, self.patience, self.span = session, drain, patience, span

    def client(self) -> dict[str, int]:
        """As the client wants them. A join waits for the others' drain, so a request waits longer
        than that."""
        return {
            "session_timeout_ms": int(self.session * 1000),
            "heartbeat_interval_ms": int(min(HEARTBEAT, self.session / 3) * 1000),
            "rebalance_timeout_ms": int((self.drain + 5) * 1000),
            "request_timeout_ms": int((self.drain + 10) * 1000),
        }


@client.listens
class Member:
    """A consumer of the group, and a tracker for each partition that it has now."""

    def __init__(
        self,
        servers: Sequence[str],
        admin: Admin,
        subscription: Subscription,
        host: Host,
        limits: Limits,
        fresh: Iterable[TopicPartition],
    ) -> None:
        self._servers, self._admin, self._subscription, self._host, self._limits = (
            servers,
            admin,
            subscription,
            host,
            limits,
        )
        self._assignor = KeepingAssignor()
        self.consumer = client.consumer(
            servers, group_id=subscription.group, enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=(self._assignor,), max_poll_interval_ms=300_000,
            metadata_max_age_ms=30_000,
            max_partition_fetch_bytes=1 << 20, fetch_max_bytes=subscription.batch_bytes,
            fetch_max_wait_ms=int(FETCH_WAIT * 1000),
            isolation_level="read_committed", **limits.client(),
        )  # fmt: skip
        self._span = limits.span
        # records that were named, for much is finished beyond them
        self._far: dict[TopicPartition, int] = {}
        self.committer = Committer(self.consumer, self.lose)
        self.trackers: dict[TopicPartition, Tracker] = {}
        # what goes to others as soon as what is in hand of it has ended
        self._leaving: dict[TopicPartition, Tracker] = {}
        self._beginnings = Beginnings(self.consumer, admin.logs, subscription.start, fresh)
        self._assigned_by: int | None = None  # the coordinator that said what is ours
        # those that stand still, and of which that was said
        self._still: set[TopicPartition] = set()
        self.changed = asyncio.Event()  # there may be something to receive
        self.settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.broken: BaseException | None = None

    async def join(self) -> None:
        """Returns before partitions are assigned: the others may still be finishing theirs."""
        try:
            await self.consumer.start()
        except BaseException as error:  # cancelled or refused, nothing of it stays open
            await self.consumer.stop()
            if isinstance(error, kafka.KafkaError):
                raise await explain(self._servers) from error
            raise
        # The client leaves the group when nobody fetches for long. Here what waits is never the
        # fetching, it is the
        # functions, and their time is the worker's to watch: as long as this process beats, it is
        # a member.
        self.consumer._subscription._fetch_count += 1
        self.consumer.subscribe([one.name for one in self._subscription.addresses], listener=self)
        self._start(self.committer.run(), "commit")

    async def leave(self) -> None:
        """Commits what is finished and leaves the group; the rest is read again by whoever comes
        next."""
        try:
            await self.committer.finish(COMMIT, self.committer.trackers)
        finally:
            for tracker in self.committer.trackers:
                tracker.end()
                self._goes_on(tracker.place)
            self.settled.set()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._stop()

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(self._limits.drain + 5):
                await self.consumer.stop()
        except (kafka.KafkaError, TimeoutError) as error:
            log.warning(
                "%s: leaving the group took too long (%r): the others wait for its session to end",
                self._subscription.group,
                error,
            )

    def _start(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(
            work, name=f"busline kafka {name} {self._subscription.group}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part that died: nobody would miss it, and its partitions would stand still. The next
        `receive` raises it."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken = error
            self.changed.set()

    # --- losing ------------------------------------------------------------------------------

    async def on_partitions_revoked(self, _: Iterable[TopicPartition]) -> None:
        """The group shares its partitions anew. What we have goes on meanwhile: it is nobody else's
        before we say so."""
        if Membership.of(self.consumer) != self.committer.membership:
            self._lose_all()
        else:
            await self.committer.commit()
        self.committer.pause()

    def _lose_all(self) -> None:
        """The group went on without us: others may have had what is ours again now."""
        self.lose(self.committer.trackers)
        self.trackers, self._leaving = {}, {}
        self._list(NOBODY)

    def _list(self, generation: int) -> None:
        """Who commits, and what we say that we have."""
        self.committer.trackers = [*self.trackers.values(), *self._leaving.values()]
        self._assignor.has(
            [(one.place.topic, one.place.partition) for one in self.committer.trackers], generation
        )

    async def _hand_over(self, trackers: Sequence[Tracker]) -> None:
        """Ends what is in hand of these, and says to the group that others may have them; but for
        those that came back."""
        self._host.release([delivery for one in trackers for delivery in one.held.values()])
        await self._drained(trackers)
        await self.committer.finish(self._limits.patience, trackers)
        free = [one for one in trackers if self._leaving.get(one.place) is one]
        self.lose(free)
        for one in free:
            del self._leaving[one.place]
        self._list(self.committer.membership.generation)
        if free or not trackers:
            self.consumer._coordinator.request_rejoin()

    async def _drained(self, trackers: Sequence[Tracker]) -> None:
        """Until nothing of them is in hand, the time is over, or they came back."""
        begun = time.monotonic()
        while held := [
            delivery
            for one in trackers
            if self._leaving.get(one.place) is one
            for delivery in one.held.values()
        ]:
            # the others have ended, and wait for the cluster
            runs = any(one.sends is not None for one in held)
            left = (
                begun
                + self._limits.drain
                + (0 if runs else self._limits.patience)
                - time.monotonic()
            )
            if left <= 0:
                return
            self.settled.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK)):
                    await self.settled.wait()

    def lose(self, trackers: Sequence[Tracker]) -> None:
        """These are another's: whatever still runs of them is cut."""
        for one in trackers:
            self._goes_on(one.place)
        gone = [delivery for tracker in trackers for delivery in tracker.end()]
        if gone:
            log.warning(
                "%s: %d deliveries run elsewhere, for their partitions moved before they were"
                " finished",
                self._subscription.group,
                len(gone),
            )
            self._host.recall(gone)
        self.settled.set()
        self.changed.set()

    # --- adopting ----------------------------------------------------------------------------

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Returns at once: as long as this is awaited the client sends no heartbeat."""
        membership, self._assigned_by = (
            Membership.of(self.consumer),
            self.consumer._coordinator.coordinator_id,
        )
        if membership.member != self.committer.membership.member:
            self._lose_all()
        places = sorted(assigned)
        told = [
            place
            for place in map(TopicPartition._make, self._assignor.owned)
            if place not in places
        ]  # what we said that we have
        had = {one.place: one for one in self.committer.trackers if not one.over}
        fresh = [self._tracker(place) for place in places if place not in had]
        leaving = [had[place] for place in told if place in self.trackers and place in had]
        self._leaving = {place: had[place] for place in told if place in had}
        self.trackers = {place: had[place] for place in places if place in had} | {
            one.place: one for one in fresh
        }
        self._list(membership.generation)
        self.committer.resume(membership)
        self._go_on([self.trackers[place] for place in places if place in had])
        Fetched(self.consumer).bound(len(places), 2 * self._subscription.batch_bytes)
        names = ", ".join(map(_name, places)) or "nothing yet: others have all partitions"
        log.info("%s: reads %s", self._subscription.group, names)
        self._start(self._adopt(fresh), "adopt")
        if leaving or len(self._leaving) < len(told):
            self._start(self._hand_over(leaving), "hand over")

    def _go_on(self, trackers: Sequence[Tracker]) -> None:
        """These stay: the client, which has forgotten where it was, reads on behind what is
        here."""
        for one in trackers:
            if one.frontier is not None:
                self.consumer.seek(
                    one.place, one.frontier.next if one.source is None else end_of(one.source)
                )
        self.changed.set()

    async def _adopt(self, trackers: Sequence[Tracker]) -> None:
        """Looks up where to begin, and begins with those that answer."""
        stored = await self._stored([one.place for one in trackers])
        while waits := [one for one in trackers if not one.over and one.frontier is None]:
            try:
                found = await self._beginnings.of([one.place for one in waits], stored)
            except (kafka.KafkaError, OSError, TimeoutError) as error:
                log.warning("%s", translated(self._subscription.group or "", error))
                found = {}
            for one in waits:
                if one.over:
                    continue
                if one.place in found:
                    self._begin(one, found[one.place])
                else:
                    remedy = (
                        "Look whether its broker is well; the other partitions are read meanwhile."
                    )
                    self._stands(
                        one.place, wrong(_name(one.place), "a leader that answers", "none", remedy)
                    )
            if any(one.committed < 0 for one in found.values()):
                await self.committer.commit()  # a start is stored before anybody counts on it
            await asyncio.sleep(AGAIN if len(found) < len(waits) else 0)

    async def _stored(self, places: Sequence[TopicPartition]) -> Stored:
        """What the group has stored for them, asked once. A coordinator that takes over shows for
        some seconds what was stored before: it is believed when it has written down itself whose
        they are, behind all that."""
        while True:
            try:
                stored = await self._beginnings.stored(places)
            except (kafka.KafkaError, OSError, TimeoutError) as error:
                log.warning("%s", translated(self._subscription.group or "", error))
            else:
                if self.consumer._coordinator.coordinator_id == self._assigned_by:
                    return stored
                self.consumer._coordinator.request_rejoin()
            await asyncio.sleep(AGAIN)

    def _begin(self, tracker: Tracker, beginning: Beginning) -> None:
        if beginning.deleted:
            self._count_gap(tracker, beginning.deleted, beginning.offset)
        if beginning.cut:
            log.warning(
                "%r: the log has lost its last %d records: it goes on at %d",
                tracker,
                beginning.cut,
                beginning.offset,
            )
        tracker.begin(beginning.offset, beginning.committed, beginning.ahead, beginning.topic)
        self.consumer.seek(tracker.place, beginning.offset)
        self._goes_on(tracker.place)
        self.committer.moved()
        self.changed.set()

    def _count_gap(self, tracker: Tracker, count: int, there: int) -> None:
        self._host.missed(count)
        log.warning(
            "%r: %d records were deleted before they were read: it goes on at %d",
            tracker,
            count,
            there,
        )

    def _stands(self, place: TopicPartition, why: str) -> None:
        if place not in self._still:
            self._still.add(place)
            log.error("%s: %s", self._subscription.group, why)
            self._host.waits(_name(place), why)

    def _goes_on(self, place: TopicPartition) -> None:
        """Or it is another's."""
        if place in self._still:
            self._still.discard(place)
            self._host.waits(_name(place), None)

    async def placed(self) -> bool:
        """Whether the group stands on every partition that was new to it, but for those that nobody
        leads."""
        fresh = self._beginnings.fresh
        if not fresh:
            return True
        with told(self._subscription.group or ""):
            leaders = await self._admin.logs.leaders({place.topic for place in fresh})
            led = [place for place in fresh if leaders.get(place, NOBODY) >= 0]
            return not led or len(
                await self._admin.offsets(self._subscription.group or "", led)
            ) == len(led)

    def _tracker(self, place: TopicPartition) -> Tracker:
        return Tracker(place, self._subscription.order, self._span)

    def is_far(self, tracker: Tracker) -> None:
        """Said once for each record that holds its partition up."""
        if self._far.get(tracker.place) != tracker.low:
            self._far[tracker.place] = tracker.low
            what = (
                "%s: as much is finished beyond %s@%d as may be, and that one is not: until it is,"
                " nothing more is handed out of its partition"
            )
            log.warning(what, self._subscription.group, _name(tracker.place), tracker.low)

    # --- what cannot be read -----------------------------------------------------------------

    def stop(self, tracker: Tracker, error: Exception) -> None:
        """It cannot be read further as long as this process has it; the others go on."""
        next_one = "?" if tracker.frontier is None else tracker.frontier.next
        at = f"{_name(tracker.place)}@{next_one}"
        remedy = (
            "Its partition stands still, the others go on. Start a version that reads it, or set"
            " the group behind it with Kafka's own tools."
        )
        self._stands(
            tracker.place,
            wrong(
                at,
                "a record that can be read",
                f"{type(error).__name__}: {cut(str(error))}",
                remedy,
            ),
        )

    def read_leniently(self, tracker: Tracker) -> None:
        """What comes next has a header whose name is no UTF-8."""
        self._start(self._read_leniently(tracker), "read")

    async def _read_leniently(self, tracker: Tracker) -> None:
        while not tracker.over and tracker.source is not None:
            try:
                batch = await lenient.fetch(
                    self.consumer._client, tracker.place, tracker.source.next_fetch_offset
                )
            except (kafka.KafkaError, OSError, TimeoutError) as error:
                log.warning("%r: %s", tracker, translated(tracker.place.topic, error))
                await asyncio.sleep(AGAIN)
            else:
                go_on_with(tracker.source, batch)
                tracker.failure = None
                return self.changed.set()

    def find(self, tracker: Tracker) -> None:
        """The log does not have what is to be read next."""
        tracker.source, tracker.astray, tracker.failure = None, True, None
        self._start(self._find(tracker), "find")

    async def _find(self, tracker: Tracker) -> None:
        while not tracker.over:
            try:
                found = await self._beginnings.again(tracker)
            except (kafka.KafkaError, OSError, TimeoutError) as error:
                log.warning("%r: %s", tracker, translated(tracker.place.topic, error))
                found = None
            if tracker.over:
                return
            if found is not None:
                return self._go_on_there(tracker, found)
            await asyncio.sleep(AGAIN)

    def _go_on_there(self, tracker: Tracker, found: Beginning) -> None:
        assert tracker.frontier is not None
        if found.offset < tracker.frontier.next:
            return self._replace(tracker, found)
        if found.deleted:
            self._count_gap(tracker, found.deleted, found.offset)
        tracker.go_on_at(found.offset)
        self.consumer.seek(tracker.place, found.offset)
        self.changed.set()

    def _replace(self, tracker: Tracker, found: Beginning) -> None:
        """Not all of what is in hand is in the log: it is another one, or has lost its end."""
        if not found.cut:
            log.warning("%r: its topic was made anew, and is read from its beginning", tracker)
        self.lose([tracker])
        fresh = self.trackers[tracker.place] = self._tracker(tracker.place)
        self._list(self.committer.membership.generation)
        self._begin(fresh, found)


def _name(place: TopicPartition) -> str:
    return f"{place.topic}/{place.partition}"
