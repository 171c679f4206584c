"""What cannot be settled now waits with its partition; what can be goes on."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from busline import App, Delivery, Topic
from busline.app import Setting
from busline.core.address import Address
from busline.core.clock import SystemClock
from busline.core.errors import Invalid, Unavailable
from busline.core.message import Message
from busline.core.outcome import ACKED, Acked, Keep, Outcome, Rejected, Send, Settlement
from busline.core.ports import Features, Host, Receiver, Subscription
from busline.runtime.engines import Engines
from busline.runtime.settling import GROUP, GROUP_BYTES, fitting
from busline.transports.memory import MemoryTransport

topic, away = Topic("numbers", int, partitions=4), Topic("away", int, partitions=1)
Settled = tuple[Delivery, Outcome]


class Engine(MemoryTransport):
    """A memory whose settling, or publishing to a topic, can be kept from working."""

    def __init__(self, *, atomic: bool = True, notes: bool = False) -> None:
        super().__init__(SystemClock())
        self.features = Features(True, True, durable=notes, atomic=atomic, notes=notes)
        self.stuck: set[str] = set()  # partitions and topics
        self.refused: set[int] = set()  # values whose effects can never be written
        self.tried: list[list[Settled]] = []

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        if address.name in self.stuck:
            raise Unavailable(f"'{address.name}' is away.")
        return await super().publish(address, messages)

    @asynccontextmanager
    async def subscribe(self, subscription: Subscription, host: Host) -> AsyncGenerator[Receiver]:
        async with super().subscribe(subscription, host) as receiver:
            yield Partly(receiver, self)


class Partly:
    def __init__(self, inner: Receiver, engine: Engine) -> None:
        self.receive, self._settle, self._engine = inner.receive, inner.settle, engine

    async def settle(self, settled: Sequence[Settled]) -> Settlement:
        self._engine.tried.append(list(settled))
        for delivery, outcome in settled:
            if delivery.partition in self._engine.stuck:
                raise Unavailable(f"{delivery.partition} has no leader.")
            if (
                isinstance(outcome, Acked)
                and outcome.effects
                and int(delivery.body or b"0") in self._engine.refused
            ):
                raise ValueError("cannot be packed")
        return await self._settle(settled)


def reading(engine: Engine, foreign: Engine | None = None) -> tuple[App, Setting, list[int]]:
    app, seen = App("a", publishes=[away]), list[int]()

    @app.subscriber(topic, order="none")
    async def see(n: int) -> None:
        seen.append(n)

    return (
        app,
        Setting(Engines(engine, foreign or engine), engine.clock, drain=0.2, cancel=0.2),
        seen,
    )


async def settled(app: App, engine: Engine, behind: int) -> None:
    async with asyncio.timeout(20):
        while sum(one.behind for one in await engine.inspector.lag()) != behind:
            await asyncio.sleep(0.001)


async def test_a_partition_that_cannot_be_settled_holds_up_no_other() -> None:
    engine = Engine()
    app, setting, _ = reading(engine)
    async with app.running_with(setting):
        engine.stuck.add("numbers/0")
        await app.publish_many(topic, range(400))
        await settled(app, engine, 100)
        async with asyncio.timeout(5):
            while not app.bus().away():
                await asyncio.sleep(0.001)
        assert app.bus().away() == {"see numbers/0": "numbers/0 has no leader."}
        engine.stuck.clear()
        await settled(app, engine, 0)
        async with asyncio.timeout(5):
            while app.bus().away():
                await asyncio.sleep(0.001)


async def test_what_waits_is_given_back_at_the_end() -> None:
    engine = Engine()
    app, setting, seen = reading(engine)
    async with engine:
        async with app.running_with(setting):
            engine.stuck.add("numbers/0")
            await app.publish_many(topic, range(40))
            await settled(app, engine, 10)
        engine.stuck.clear()
        async with app.running_with(setting):
            await settled(app, engine, 0)
    assert len(seen) == 50


async def test_a_job_whose_output_is_away_holds_up_no_other() -> None:
    streams, jobs = Engine(), Engine()
    app, done = App("a", publishes=[away]), list[int]()

    @app.task
    async def do(n: int) -> None:
        done.append(n)
        if n == 0:
            await app.publish(away, n)

    async with app.running_with(Setting(Engines(streams, jobs), jobs.clock, drain=0.2, cancel=0.2)):
        streams.stuck.add("away")
        waits = await do.enqueue(0)
        await app.enqueue_many(do.call(n) for n in range(1, 300))
        async with asyncio.timeout(20):
            while (
                len(done) < 300
                or (await jobs.inspector.depth())["a"].running != 1
                or not app.bus().away()
            ):
                await asyncio.sleep(0.001)
        assert (await waits.status()).state == "running"
        assert app.bus().away() == {"a away": "'away' is away."}
        streams.stuck.clear()
        async with asyncio.timeout(20):
            while (await jobs.inspector.depth())["a"].running:
                await asyncio.sleep(0.001)
        assert len(streams.published(away.address)) == 1
    assert done == list(range(300))


async def test_an_outcome_that_can_never_be_written_is_dead_and_the_others_are_not() -> None:
    engine = Engine()
    app = App("a", publishes=[away])

    @app.subscriber(topic, order="none", publish=away)
    async def see(n: int) -> int:
        return n

    async with app.running_with(Setting(Engines(engine, engine), engine.clock)):
        engine.refused.add(7)
        await app.publish_many(topic, range(50))
        await settled(app, engine, 0)
        (letter,) = await engine.inspector.dead()
        assert (
            letter.reason == "its outcome cannot be written: cannot be packed"
            and letter.body == b"7"
        )
        counts = app.bus().counts["see"]
        assert (counts.handled, counts.dead) == (49, 1)


async def test_what_an_engine_buries_by_itself_is_counted_and_told_as_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It sends to a topic that has another number of partitions by now."""
    engine, app = Engine(), App("a", publishes=[away])

    @app.subscriber(topic, order="none", publish=away)
    async def see(n: int) -> int:
        if n == 7:
            engine.logs[away.name].parts.append([])
        return n

    with caplog.at_level(logging.ERROR, "busline"):
        async with app.running_with(Setting(Engines(engine, engine), engine.clock)):
            await app.publish(away, 0)
            await app.publish(topic, 7)
            await settled(app, engine, 0)
            counts = app.bus().counts["see"]
            assert (counts.handled, counts.dead) == (0, 1)
            (letter,) = await engine.inspector.dead()
    assert letter.reason.startswith("its sends cannot be done")
    assert "is in the dead letters: its sends cannot be done" in caplog.text


async def test_effects_that_take_a_way_of_their_own_are_settled_by_partition() -> None:
    engine = Engine(atomic=False)
    app = App("a", publishes=[away])

    @app.subscriber(topic, order="none", publish=away)
    async def see(n: int) -> int:
        return n

    async with app.running_with(Setting(Engines(engine, engine), engine.clock)):
        await app.publish_many(topic, range(40))
        await settled(app, engine, 0)
        assert all(len({one.partition for one, _ in group}) == 1 for group in engine.tried)


async def test_a_lane_opens_at_the_note_or_when_what_left_with_the_record_is_confirmed() -> None:
    streams, jobs = Engine(notes=True), Engine()
    app, seen = App("a"), list[int]()

    @app.task
    async def later(n: int) -> None: ...

    @app.subscriber(topic)
    async def see(n: int) -> None:
        seen.append(n)
        if n % 2:
            await later.enqueue(n)

    async with app.running_with(Setting(Engines(streams, jobs), jobs.clock)):
        await app.publish_many(topic, range(40))
        await settled(app, streams, 0)
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize(
    ("outcomes", "count"),
    [
        ([ACKED] * 250, GROUP),
        ([ACKED], 1),
        ([Acked((Keep("k", b"x" * GROUP_BYTES, 1.0),))] * 3, 1),
        ([Acked((Send(Address("queue", "q"), Message("m", b"x" * (GROUP_BYTES * 2))),))] * 3, 1),
        ([Acked((Keep("k", b"x" * (GROUP_BYTES // 4), 1.0),))] * 9, 4),
        ([ACKED, Rejected("no"), ACKED], 3),
    ],
)
def test_groups_are_bounded_in_number_and_in_bytes(outcomes: list[Outcome], count: int) -> None:
    delivery = Delivery(Message("m", b""), "q", 1, None, None, None)

    assert fitting([(delivery, one) for one in outcomes]) == count


async def test_an_engine_that_refuses_everything_ends_the_worker() -> None:
    class Damaged(Engine):
        @asynccontextmanager
        async def subscribe(
            self, subscription: Subscription, host: Host
        ) -> AsyncGenerator[Receiver]:
            async with super().subscribe(subscription, host) as receiver:
                receiver.settle = self.settle  # type: ignore[method-assign]  # of this receiver alone
                yield receiver

        async def settle(self, settled: Sequence[Settled]) -> Settlement:
            raise Invalid("a damaged file")

    app, setting, _ = reading(Damaged())
    with pytest.raises(Invalid, match="a damaged file"):
        async with app.running_with(setting):
            await app.publish(topic, 1)
            async with asyncio.timeout(5):
                await app.ended()
