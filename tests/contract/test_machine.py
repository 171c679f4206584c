"""Any order of publish, receive, settle, delay, crash and take-over: every message stays in exactly
one place."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from busline.core.address import Address
from busline.core.ids import derived_id
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, RELEASED, Acked, Outcome, Rejected, Retried, Send
from busline.core.ports import Depth, Receiver, State, Subscription
from busline.testing.clock import SimClock
from busline.testing.contract import Recorder
from busline.testing.contract.desk import refused
from busline.transports.memory import MemoryTransport
from busline.transports.sqlite import SqliteTransport

JOBS, EFFECTS, RECORDS = (
    Address("queue", "jobs"),
    Address("queue", "effects"),
    Address("topic", "records", 2),
)
KINDS = ("jobs", "records")
QUESTIONS, HOPS = (
    6,
    5,
    # more than one call asks one after the other; turns of the loop from an answer to the next
    # question
)
MOST = 10  # rounds of walks, each with other chances
T = TypeVar("T")
Engine = MemoryTransport | SqliteTransport


class Machine(RuleBasedStateMachine):
    """`final`: how each finished id ended. `tried`, `effects`: what was to be sent, and what an
    applied outcome sent. `attempts`, `earliest`: how often a job failed, and when it may come at
    the earliest. `former`: what was in hand once."""

    reached: ClassVar[Counter[str]] = Counter()

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = SimClock()
        self.names = iter(range(10_000))
        self.final: dict[str, str] = {}
        self.all_jobs: set[str] = set()
        self.all_records: set[str] = set()
        self.tried: list[str] = []
        self.effects: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.earliest: dict[str, float] = {}
        self.former: list[tuple[str, Delivery]] = []
        self.foreign: list[str] = []
        self.ran_elsewhere: list[str] = []
        self.elsewhere = MemoryTransport(self.clock)
        self.stacks: list[AsyncExitStack] = []
        self.run(self.open())
        self.publish(3, 4, None)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def within() -> T:
            async with asyncio.timeout(20):
                return await work

        return self.runner.run(within())

    async def open(self) -> None:
        self.engine = await self.enter()
        self.host = Recorder(self.clock)
        self.hand: dict[str, list[Delivery]] = {"jobs": [], "records": []}
        self.receivers: dict[str, Receiver] = {
            "jobs": (
                await self.stacks[-1].enter_async_context(
                    self.engine.subscribe(Subscription((JOBS,)), self.host)
                )
            ),
            "records": (
                await self.stacks[-1].enter_async_context(
                    self.engine.subscribe(Subscription((RECORDS,), "g", "none"), self.host)
                )
            ),
        }

    async def enter(self) -> Engine:
        self.stacks.append(AsyncExitStack())
        return await self.stacks[-1].enter_async_context(
            SqliteTransport(Path(self.folder.name) / "bus.db", clock=self.clock)
        )

    async def quiet(self, waiting: "asyncio.Future[Any] | None" = None) -> None:
        """Returns when it is done, or when whoever has asked the file something was answered, and
        so for a few questions more: who still waits then waits for something to happen. However
        long that takes, what is found is the same."""
        for _ in range(QUESTIONS):
            if waiting is not None and waiting.done():
                return
            await self.engine.inspector.depth()
            for _ in range(HOPS):
                await asyncio.sleep(0)

    # --- what may happen ---------------------------------------------------------------------
    # few rules, each with much in it: Hypothesis leaves some rules out of each walk

    @rule(jobs=st.integers(0, 3), records=st.integers(0, 3), delay=st.sampled_from([None, 5.0]))
    def publish(self, jobs: int, records: int, delay: float | None) -> None:
        names, due = (
            [f"j{next(self.names)}" for _ in range(jobs)],
            None if delay is None else self.clock.now + delay,
        )
        self.run(
            self.engine.publish(
                JOBS, [Message(name, b"", at=self.clock.now, due=due) for name in names]
            )
        )
        self.all_jobs |= set(names)
        self.earliest.update(dict.fromkeys(names, due or 0.0))
        names = [f"r{next(self.names)}" for _ in range(records)]
        self.run(
            self.engine.publish(
                RECORDS,
                [Message(name, b"", key=name.encode(), at=self.clock.now) for name in names],
            )
        )
        self.all_records |= set(names)

    @rule(by=st.sampled_from([0.0, 1.0, 6.0]), limit=st.integers(1, 3))
    def receive(self, by: float, limit: int) -> None:
        async def some(kind: str) -> None:
            waiting = asyncio.ensure_future(self.receivers[kind].receive(limit))
            await self.quiet(waiting)
            if not waiting.done():
                waiting.cancel()
            found = (await asyncio.gather(waiting, return_exceptions=True))[0]
            if not isinstance(found, BaseException):
                self.came(kind, found)
            else:
                assert isinstance(found, asyncio.CancelledError)

        self.move(by)
        for kind in KINDS:
            self.run(some(kind))

    def came(self, kind: str, deliveries: Sequence[Delivery]) -> None:
        """Nothing finished comes again, nothing in hand comes twice, nothing before its time."""
        for one in deliveries:
            assert one.id not in self.final
            assert one.id not in {other.id for other in self.hand[kind]}
            assert one.attempt == self.attempts.get(one.id, 0) + 1
            assert self.earliest.get(one.id, 0.0) <= self.clock.now
            self.hand[kind].append(one)
            self.reached[kind] += 1
            self.reached["again"] += one.id in {former.id for _, former in self.former}
            self.reached["retried"] += one.attempt > 1
            self.reached["delayed"] += one.message.due is not None

    @precondition(lambda self: any(self.hand.values()))
    @rule(
        ends=st.lists(
            st.tuples(st.integers(0, 7), st.sampled_from(["ack", "reject", "retry", "release"])),
            min_size=1,
            max_size=4,
        ),
        twice=st.booleans(),
    )
    def settle(self, ends: list[tuple[int, str]], twice: bool) -> None:
        for kind in KINDS:
            self.settle_kind(kind, ends, twice)

    def settle_kind(self, kind: str, ends: list[tuple[int, str]], twice: bool) -> None:
        hand = self.hand[kind]
        chosen = [(hand.pop(n % len(hand)), end) for n, end in ends if hand]
        settled = [(one, self.outcome(one, end)) for one, end in chosen]
        assert self.run(refused(self.receivers[kind], *settled)) == []
        for delivery, outcome in settled:
            self.applied(delivery, outcome)
            self.former.append((kind, delivery))
        if twice:
            assert self.run(refused(self.receivers[kind], *settled)) == [one for one, _ in settled]

    def outcome(self, delivery: Delivery, end: str) -> Outcome:
        if end == "ack":
            # an id of its own each time: nobody takes a second one for the first
            self.tried.append(f"e{next(self.names)}")
            return Acked((Send(EFFECTS, Message(self.tried[-1], b"", at=self.clock.now)),))
        return (
            Rejected("no")
            if end == "reject"
            else Retried(3.0, ValueError())
            if end == "retry"
            else RELEASED
        )

    def applied(self, delivery: Delivery, outcome: Outcome) -> None:
        self.reached[type(outcome).__name__] += 1
        if isinstance(outcome, Acked | Rejected):
            assert delivery.id not in self.final
            self.final[delivery.id] = "ack" if isinstance(outcome, Acked) else "reject"
            self.effects |= {one.message.id for one in outcome.effects if isinstance(one, Send)}
        elif isinstance(outcome, Retried) and delivery.id in self.all_jobs:
            self.attempts[delivery.id] = delivery.attempt
            self.earliest[delivery.id] = self.clock.now + outcome.after

    @precondition(lambda self: self.hand["records"])
    @rule(crash=st.booleans())
    def foreign_send(self, crash: bool) -> None:
        """A record's job goes to another engine, which remembers its id; then the settle, or a
        crash between."""
        delivery = self.hand["records"][0]
        job = Message(
            derived_id(delivery.position, delivery.message.at, "job"),
            b"",
            at=self.clock.now,
            remember=3600.0,
        )
        if self.run(self.elsewhere.publish(JOBS, [job])):
            self.reached["known elsewhere"] += 1
            self.reached["remembered elsewhere"] += job.id in self.ran_elsewhere
        else:
            self.foreign.append(delivery.id)
        if crash:
            self.run_elsewhere()
            self.disturb("crash")
        else:
            self.hand["records"].pop(0)
            assert self.run(refused(self.receivers["records"], (delivery, Rejected("sent")))) == []
            self.applied(delivery, Rejected("sent"))

    def run_elsewhere(self) -> None:
        """The other engine's jobs end: from now on it only remembers their ids."""

        async def some() -> None:
            async with self.elsewhere.subscribe(Subscription((JOBS,)), self.host) as receiver:
                while not self.elsewhere.quiet():
                    got = await receiver.receive(100)
                    self.ran_elsewhere += [one.id for one in got]
                    await receiver.settle([(one, ACKED) for one in got])

        self.run(some())

    @precondition(lambda self: self.former)
    @rule(which=st.integers(0, 20))
    def look_back(self, which: int) -> None:
        """What was in hand once settles nothing; what is dead runs again."""
        kind, delivery = self.former[which % len(self.former)]
        if delivery.id not in {one.id for one in self.hand[kind]}:
            assert self.run(
                refused(self.receivers[kind], (delivery, self.outcome(delivery, "ack")))
            ) == [delivery]
            self.reached["late"] += 1
        dead = [
            name for name, end in self.final.items() if end == "reject" and name in self.all_jobs
        ]
        if dead:
            self.redrive(dead[which % len(dead)])

    def redrive(self, name: str) -> None:
        assert self.run(self.engine.inspector.redrive([name])) == (1, ())
        del self.final[name]
        self.attempts.pop(name, None)
        self.earliest.pop(name, None)
        self.reached["redriven"] += 1

    def move(self, by: float) -> None:
        async def moved() -> None:
            self.clock.move(by)
            await self.quiet()

        if by:
            self.run(moved())

    @rule(how=st.sampled_from(["leave", "crash", "take over"]))
    def disturb(self, how: str) -> None:
        self.reached[how] += any(self.hand.values())
        if how == "leave":
            self.run(self.stacks.pop().aclose())
            self.run(self.open())
        elif how == "crash":
            self.crash()
        else:
            self.take_over()

    def crash(self) -> None:
        """The process is gone with all it had in hand; another one finds it dead."""
        self.run(self.die())
        self.run(self.open())
        self.run(self.look())

    def take_over(self) -> None:
        """The process stood still for too long: another has its work, and nothing it still says
        counts."""
        hand, receivers = self.hand, self.receivers
        self.run(self.replace())
        for kind, deliveries in hand.items():
            late = [(one, self.outcome(one, "ack")) for one in deliveries]
            assert self.run(refused(receivers[kind], *late)) == deliveries
        self.run(self.stacks.pop(0).aclose())

    async def replace(self) -> None:
        """Another process finds this one dead, although it lives."""
        await self.open()
        assert isinstance(self.engine, SqliteTransport)
        self.engine.neighbours.lease = -1.0
        await self.engine.neighbours.look()
        self.engine.neighbours.lease = 20.0

    async def die(self) -> None:
        self.stacks.pop()
        assert isinstance(self.engine, SqliteTransport)
        asyncio.get_running_loop().remove_reader(self.engine.process.pipe)
        assert self.engine.neighbours._timer is not None
        self.engine.neighbours._timer.cancel()
        if self.engine.neighbours._looking is not None:
            await asyncio.wait((self.engine.neighbours._looking,))
        self.engine.process.close()  # its lock is free: what a kill leaves behind
        await self.engine.file.close()

    async def look(self) -> None:
        assert isinstance(self.engine, SqliteTransport)
        await self.engine.neighbours.look()

    # --- what must always hold ---------------------------------------------------------------

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        states, dead, effects, behind = self.run(self.census())
        living = {
            name for name, state in states.items() if state in ("waiting", "delayed", "running")
        }
        assert living == self.all_jobs - self.final.keys()
        assert dead == {name for name, end in self.final.items() if end == "reject"}
        assert effects == self.effects
        assert behind == len(self.all_records - self.final.keys())
        assert all(states[one.id] == "running" for one in self.hand["jobs"])
        assert len(self.foreign) == len(set(self.foreign))
        assert len(self.ran_elsewhere) == len(set(self.ran_elsewhere))

    async def census(self) -> tuple[dict[str, State], set[str], set[str], int]:
        """Where each job is, what is dead, which effects there are, how far the group is behind:
        all of one moment."""
        inspector = self.engine.inspector
        while True:
            letters = await inspector.dead(limit=100_000)
            states = {name: (await inspector.look(name)).state for name in self.all_jobs}
            depths = await inspector.depth()
            if list(letters) == list(await inspector.dead(limit=100_000)):
                break  # no look at the other processes came between
        for one in letters:
            if one.reason == "its worker died 3 times":  # a job that was in hand at every crash
                self.final.setdefault(one.id, "reject")
        assert len({one.id for one in letters}) == len(letters)
        assert self.numbers(states)[:4] == depths.get("jobs", Depth())[:4]
        effects = {name for name in self.tried if (await inspector.look(name)).state == "waiting"}
        assert len(effects) == depths.get("effects", Depth()).waiting
        return (
            states,
            {one.id for one in letters},
            effects,
            sum(one.behind for one in await inspector.lag()),
        )

    def numbers(self, states: Mapping[str, State]) -> Depth:
        """The queue's numbers as the jobs' own states tell them."""
        count = Counter(states.values())
        retrying = sum(
            state == "delayed" and name in self.attempts for name, state in states.items()
        )
        return Depth(count["waiting"], count["delayed"] - retrying, retrying, count["running"])

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.stacks.pop().aclose())
            self.runner.close()
            self.folder.cleanup()


class MemoryMachine(Machine):
    async def enter(self) -> Engine:
        self.stacks.append(AsyncExitStack())
        if not hasattr(self, "memory"):
            self.memory = MemoryTransport(self.clock)
        return self.memory

    async def die(self) -> None:
        stack = self.stacks.pop()
        for receiver in list(self.memory.receivers):
            self.memory.lose(receiver)
        await stack.aclose()

    async def look(self) -> None: ...

    async def replace(self) -> None:
        for receiver in list(self.memory.receivers):
            self.memory.lose(receiver)
        assert self.host.recalled == [one for kind in KINDS for one in self.hand_in_order(kind)]
        await self.open()

    def hand_in_order(self, kind: str) -> list[Delivery]:
        """What is in hand, in the order in which it came."""
        return sorted(
            self.hand[kind], key=lambda one: list(map(id, self.host.recalled)).index(id(one))
        )


PLACES = (
    "jobs", "records", "again", "retried", "delayed", "Acked", "Rejected", "Retried", "Released",
    "late", "redriven",
    "leave", "crash", "take over", "known elsewhere", "remembered elsewhere",
)  # fmt: skip


def walk(machine: type[Machine], examples: int) -> None:
    """Walks until the walks went everywhere, with the same chances each time: a rule that never
    gets its turn proves nothing."""
    machine.reached = Counter()
    walks = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    for chances in range(MOST):
        run_state_machine_as_test(seed(chances)(machine), settings=walks)  # type: ignore[no-untyped-call, unused-ignore]  # as Hypothesis ships it
        if all(machine.reached[place] >= 3 for place in PLACES):
            return
    raise AssertionError(f"the walks never went everywhere: {machine.reached}")


def test_every_message_stays_in_one_place_in_memory() -> None:
    walk(MemoryMachine, 25)


def test_every_message_stays_in_one_place_in_sqlite() -> None:
    walk(Machine, 15)
