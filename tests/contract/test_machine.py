"""Any order of publish, receive, settle, delay, crash and take-over: every message stays in exactly one place."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from busline.core.address import Address
from busline.core.ids import derived_id
from busline.core.message import Delivery, Message
from busline.core.outcome import RELEASED, Acked, Outcome, Rejected, Retried, Send
from busline.core.ports import Receiver, Subscription
from busline.testing.clock import SimClock
from busline.testing.contract import Recorder
from busline.transports.memory import MemoryTransport
from busline.transports.sqlite import SqliteTransport

JOBS, EFFECTS, RECORDS = Address("queue", "jobs"), Address("queue", "effects"), Address("topic", "records", 2)
T = TypeVar("T")
Engine = MemoryTransport | SqliteTransport


class Machine(RuleBasedStateMachine):
    """`jobs`, `records`: every id, and whether it is final. `effects`: what an applied outcome sent, within the engine
    and to another one."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = SimClock()
        self.names = iter(range(10_000))
        self.final: dict[str, str] = {}
        self.all_jobs: set[str] = set()
        self.all_records: set[str] = set()
        self.effects: set[str] = set()
        self.foreign: list[str] = []
        self.crashed = False
        self.elsewhere = MemoryTransport(self.clock)
        self.stacks: list[AsyncExitStack] = []
        self.abandoned: list[SqliteTransport] = []
        self.run(self.open())

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
            "jobs": await self.stacks[-1].enter_async_context(self.engine.subscribe(Subscription((JOBS,)), self.host)),
            "records": await self.stacks[-1].enter_async_context(self.engine.subscribe(Subscription((RECORDS,), "g", "none"), self.host)),
        }

    async def enter(self) -> Engine:
        self.stacks.append(AsyncExitStack())
        return await self.stacks[-1].enter_async_context(SqliteTransport(Path(self.folder.name) / "bus.db", clock=self.clock))

    # --- what may happen -----------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4), delay=st.sampled_from([None, 5.0]))
    def publish_jobs(self, count: int, delay: float | None) -> None:
        names = [f"j{next(self.names)}" for _ in range(count)]
        due = None if delay is None else self.clock.now + delay
        self.run(self.engine.publish(JOBS, [Message(name, b"", at=self.clock.now, due=due) for name in names]))
        self.all_jobs |= set(names)

    @rule(count=st.integers(1, 4))
    def publish_records(self, count: int) -> None:
        names = [f"r{next(self.names)}" for _ in range(count)]
        self.run(self.engine.publish(RECORDS, [Message(name, b"", key=name.encode(), at=self.clock.now) for name in names]))
        self.all_records |= set(names)

    @rule(kind=st.sampled_from(["jobs", "records"]), limit=st.integers(1, 3))
    def receive(self, kind: str, limit: int) -> None:
        async def some() -> None:
            waiting = asyncio.ensure_future(self.receivers[kind].receive(limit))
            await asyncio.wait((waiting,), timeout=0.02)
            if not waiting.done():
                waiting.cancel()
            found = (await asyncio.gather(waiting, return_exceptions=True))[0]
            if not isinstance(found, BaseException):
                self.hand[kind] += found

        self.run(some())

    @precondition(lambda self: any(self.hand.values()))
    @rule(
        kind=st.sampled_from(["jobs", "records"]),
        ends=st.lists(st.sampled_from(["ack", "reject", "retry", "release"]), min_size=1, max_size=4),
        twice=st.booleans(),
    )
    def settle(self, kind: str, ends: list[str], twice: bool) -> None:
        chosen = [(self.hand[kind].pop(0), end) for end in ends[: len(self.hand[kind])]]
        settled = [(one, self.outcome(one, end)) for one, end in chosen]
        refused = self.run(self.receivers[kind].settle(settled))
        assert refused == []
        for delivery, end in chosen:
            self.applied(delivery, end)
        if twice:
            assert len(self.run(self.receivers[kind].settle(settled))) == len(settled)

    def outcome(self, delivery: Delivery, end: str) -> Outcome:
        if end == "ack":
            return Acked((Send(EFFECTS, Message(f"effect-{delivery.id}", b"", at=self.clock.now)),))
        return Rejected("no") if end == "reject" else Retried(3.0, ValueError()) if end == "retry" else RELEASED

    def applied(self, delivery: Delivery, end: str) -> None:
        if end in ("ack", "reject"):
            assert delivery.id not in self.final
            self.final[delivery.id] = end
        if end == "ack":
            self.effects.add(f"effect-{delivery.id}")

    @precondition(lambda self: self.hand["records"])
    @rule(crash=st.booleans())
    def foreign_send(self, crash: bool) -> None:
        """A record's job goes to another engine, which remembers its id; then the settle, or a crash between."""
        delivery = self.hand["records"][0]
        job = Message(derived_id(delivery.position, delivery.message.at, "job"), b"", at=self.clock.now, remember=3600.0)
        if not self.run(self.elsewhere.publish(JOBS, [job])):
            self.foreign.append(delivery.id)
        if crash:
            self.crash()
        else:
            self.hand["records"].pop(0)
            assert self.run(self.receivers["records"].settle([(delivery, Rejected("sent"))])) == []
            self.applied(delivery, "reject")

    @rule(by=st.sampled_from([1.0, 6.0]))
    def move(self, by: float) -> None:
        async def moved() -> None:
            self.clock.move(by)
            await asyncio.sleep(0.002)

        self.run(moved())

    @rule()
    def leave_and_return(self) -> None:
        self.run(self.stacks.pop().aclose())
        self.run(self.open())

    @rule()
    def crash(self) -> None:
        """The process is gone with all it had in hand; another one finds it dead."""
        self.run(self.die())
        self.run(self.open())
        self.run(self.look())

    async def die(self) -> None:
        self.stacks.pop()
        assert isinstance(self.engine, SqliteTransport)
        asyncio.get_running_loop().remove_reader(self.engine.process.pipe)
        assert self.engine._timer is not None
        self.engine._timer.cancel()
        if self.engine._looking is not None:
            await asyncio.wait((self.engine._looking,))
        self.engine.process.close()  # its lock is free: what a kill leaves behind
        await self.engine.file.close()

    async def look(self) -> None:
        assert isinstance(self.engine, SqliteTransport)
        await self.engine._look_once()

    # --- what must always hold -----------------------------------------------------------------------------

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        living, dead, effects, behind = self.run(self.census())
        final = {name for name, end in self.final.items() if end == "reject"}
        assert living == {name for name in self.all_jobs if name not in self.final}
        assert dead == final
        assert effects == self.effects
        assert behind == len(self.all_records) - sum(name in self.final for name in self.all_records)
        assert len(self.foreign) == len(set(self.foreign))

    async def census(self) -> tuple[set[str], set[str], set[str], int]:
        inspector = self.engine.inspector
        states = {name: (await inspector.look(name)).state for name in self.all_jobs}
        living = {name for name, state in states.items() if state in ("waiting", "delayed", "running")}
        letters = await inspector.dead(limit=100_000)
        for one in letters:
            if one.reason == "its worker died 3 times":  # a job that was in hand at every crash
                self.final.setdefault(one.id, "reject")
        living -= self.final.keys()
        dead = [one.id for one in letters]
        assert len(dead) == len(set(dead))
        depth = (await inspector.depth()).get("effects")
        effects = {f"effect-{name}" for name in self.final if (await inspector.look(f"effect-{name}")).state == "waiting"}
        assert len(effects) == (0 if depth is None else depth.waiting)
        return living, set(dead), effects, sum(one.behind for one in await inspector.lag())

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


QUICK = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TestSqliteMachine = Machine.TestCase
TestSqliteMachine.settings = QUICK
TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = QUICK
