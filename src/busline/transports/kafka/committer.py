"""How far a group is: commits what is finished without a hole, each under the membership it was
assigned with.

States: running, paused while the group shares its partitions anew. Only its member calls it, and
one commit is under way at a time. Between two awaits nothing is confirmed but what was answered for
the tracker that asked."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka import errors as kafka

from busline.transports.kafka.cluster import Group, Membership
from busline.transports.kafka.tracker import Commit, Tracker

log = logging.getLogger("busline")
EVERY = 0.25  # seconds between commits while something moves
ANSWER = 4.0
AGAIN = (7, 14, 15, 16)  # timed out, loading, not available, not the coordinator
MOVED = (7, 15, 16)  # the coordinator is to be looked up again
LOST = (22, 25)  # illegal generation, unknown member
REBALANCING = 27
UNKNOWN_TOPIC = 3
TOO_LARGE = 12
TEXT = 4096  # bytes that a commit may carry beside an offset, unless the cluster says less


class Committer:
    """The only one that commits for a member. `lose` is called with the trackers that turn out to
    be another's."""

    def __init__(self, group: Group, lose: Callable[[Sequence[Tracker]], None]) -> None:
        self._group, self._lose = group, lose
        self.membership = Membership(-1, "")
        self.trackers: list[Tracker] = []
        self._limit = TEXT
        self._moved = asyncio.Event()
        self._committing = asyncio.Lock()
        self._paused = False

    def moved(self) -> None:
        """Something is finished."""
        self._moved.set()

    async def run(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            await asyncio.sleep(EVERY)
            await self.commit()

    def pause(self) -> None:
        """While the group shares its partitions anew, a commit would be refused though nothing is
        lost."""
        self._paused = True

    def resume(self, membership: Membership) -> None:
        self.membership, self._paused = membership, False
        self._moved.set()

    async def finish(self, seconds: float, trackers: Sequence[Tracker]) -> None:
        """Commits what of them is finished, again where it is not confirmed, as long as that may
        take."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.commit()
                while any(one.due for one in trackers):
                    await asyncio.sleep(EVERY)
                    await self.commit()

    def _due(self) -> dict[TopicPartition, Tracker]:
        return {one.place: one for one in self.trackers if one.due}

    async def commit(self) -> None:
        """One try. What is not confirmed is tried again while the membership lasts."""
        async with self._committing:
            due = self._due()
            if not due or self._paused:
                return
            if self._group.membership != self.membership:
                return self._lose(list(due.values()))
            commits = {place: one.commit(self._limit) for place, one in due.items()}
            for place, code in (await self._send(commits)).items():
                self._answered(due[place], commits[place], code)

    async def _send(self, commits: Mapping[TopicPartition, Commit]) -> Mapping[TopicPartition, int]:
        """Each partition's error code; nothing where no answer came."""
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for (topic, part), commit in commits.items():
            topics.setdefault(topic, []).append((part, commit.offset, commit.text))
        try:
            async with asyncio.timeout(ANSWER):
                answer = await self._group.commit(self.membership, list(topics.items()))
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            log.debug("a commit was not answered: %r", error)
            self._moved.set()
            return {}
        return {
            TopicPartition(topic, part): code
            for topic, parts in answer.topics
            for part, code in parts
        }

    def _answered(self, tracker: Tracker, commit: Commit, code: int) -> None:
        if code == 0:
            tracker.confirm(commit)
        elif code == TOO_LARGE:
            self._limit = min(self._limit, len(commit.text)) // 2
            self._moved.set()
        elif code in LOST:
            log.warning(
                "%r: its commit is refused, for the group went on without this member; what it"
                " finished runs again",
                tracker,
            )
            self._lose([tracker])
        elif code == UNKNOWN_TOPIC:
            log.warning("%r: its topic is gone, and with it what was finished", tracker)
            self._lose([tracker])
        elif code in AGAIN or code == REBALANCING:
            self._moved.set()
            if code in MOVED:
                self._group.look_again()
        else:
            log.error("%r: its commit failed: %s", tracker, kafka.for_code(code).__name__)
            self._moved.set()
