"""Brokers that go away and workers that die: nothing is lost, nothing that is not finished is
committed."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from busline.core.address import Address
from busline.core.errors import Unavailable
from busline.core.ids import new_id
from busline.core.message import Message
from busline.testing.contract import ack, bodies, message, receive
from busline.transports.kafka import KafkaTransport
from busline.transports.kafka.admin import Admin
from busline.transports.kafka.ahead import Range, read
from busline.transports.kafka.cluster import Cluster
from tests.servers.kafka import Kafka
from tests.transports.kafka import child
from tests.transports.kafka.conftest import Engines


class Crew:
    """Workers of one group, each a process, and the ledger that they keep."""

    def __init__(self, kafka: Kafka, folder: Path, stack: AsyncExitStack) -> None:
        mark = new_id()
        self.topic, self.group, self.ledger = (
            Address("topic", f"t-{mark}", child.PARTITIONS),
            f"g-{mark}",
            folder / "ledger",
        )
        self.ledger.touch()
        self.committed: dict[int, int] = {}
        self.backwards: list[tuple[int, int, int]] = []
        self.ahead: list[tuple[int, int]] = []
        self._kafka, self._stack = kafka, stack

    async def fill(self, count: int) -> None:
        async with KafkaTransport(self._kafka.url, create_topics=True) as transport:
            await transport.publish(
                self.topic, [Message(new_id(), b"{}", key=b"%d" % n) for n in range(count)]
            )

    async def worker(
        self, seconds: float, session: float = 30.0, drain: float = 10.0, first: float | None = None
    ) -> "Process":
        times = map(str, (seconds, session, drain, seconds if first is None else first))
        arguments = [self._kafka.url, self.topic.name, self.group, str(self.ledger), *times]
        pipe = asyncio.subprocess.PIPE
        process = Process(
            await asyncio.create_subprocess_exec(
                sys.executable, child.__file__, *arguments, stdout=pipe
            )
        )
        self._stack.push_async_callback(process.kill)
        await process.said("up")
        return process

    def noted(self, what: str) -> Counter[str]:
        """How often each position was started, or done."""
        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        return Counter(words[1] for words in lines if words[0] == what)

    async def until(self, what: str, count: int, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while len(self.noted(what)) < count:
                await asyncio.sleep(0.05)

    async def kept_ahead(self, count: int) -> None:
        """Waits until so much is known to be finished beyond what is not."""
        admin = Admin(Cluster([self._kafka.server]), create_topics=False)
        await admin.open()
        try:
            async with asyncio.timeout(30):
                while (
                    sum(upto - begin for one in await self._stored(admin) for begin, upto in one)
                    < count
                ):
                    await asyncio.sleep(0.1)
        finally:
            await admin.close()

    async def _stored(self, admin: Admin) -> list[list[Range]]:
        found = await admin._client.list_consumer_group_offsets(self.group)
        return [read(one.offset, one.metadata) for one in found.values()]

    async def watch(self) -> None:
        """As another client: a commit may neither go back nor pass what is not done."""
        admin = Admin(Cluster([self._kafka.server]), create_topics=False)
        await admin.open()
        try:
            while True:
                for place, offset in (await admin.offsets(self.group)).items():
                    self._look(place.partition, offset)
                await asyncio.sleep(0.02)
        finally:
            await admin.close()

    def _look(self, part: int, offset: int) -> None:
        before = self.committed.get(part, 0)
        if offset < before:
            self.backwards.append((part, before, offset))
        done = self.noted("done")
        self.ahead += [
            (part, one)
            for one in range(before, offset)
            if f"{self.topic.name}/{part}@{one}" not in done
        ]
        self.committed[part] = offset


class Process:
    """One worker; `said` waits for a line that begins so."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdout is not None
        self._lines = process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    async def said(self, beginning: str) -> str:
        async with asyncio.timeout(60):
            while line := (await self._lines.readline()).decode():
                if line.startswith(beginning):
                    return line.strip()
        raise AssertionError(f"it ended before it said '{beginning}'")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self.signal(signal.SIGKILL)
            await self._process.wait()


@asynccontextmanager
async def watched(crew: Crew) -> AsyncGenerator[None]:
    watching = asyncio.ensure_future(crew.watch())
    yield
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert (crew.backwards, crew.ahead) == ([], [])


@pytest.fixture
async def crew(kafka: Kafka, tmp_path: Path) -> AsyncGenerator[Crew]:
    async with AsyncExitStack() as stack:
        yield Crew(kafka, tmp_path, stack)


async def test_a_worker_is_killed_and_nothing_is_lost(crew: Crew) -> None:
    await crew.fill(1200)
    async with watched(crew):
        victim, _ = await crew.worker(0.1, session=2.0), await crew.worker(0.1, session=2.0)
        await crew.until("done", 200)
        await victim.kill()
        await crew.until("done", 1200)

    again = [one for one, times in crew.noted("done").items() if times > 1]
    assert len(again) < 400


async def test_a_kill_repeats_what_ran_and_not_what_had_finished_beyond_it(crew: Crew) -> None:
    await crew.fill(1200)
    victim = await crew.worker(0.0, session=2.0, first=600.0)
    await crew.until("done", 1200 - child.PARTITIONS)
    await crew.kept_ahead(1200 - child.PARTITIONS)
    await victim.kill()

    await crew.worker(0.0, session=2.0)
    await crew.until("done", 1200)

    again = {one for one, times in crew.noted("start").items() if times > 1}
    assert again == {f"{crew.topic.name}/{part}@0" for part in range(child.PARTITIONS)}


async def test_a_worker_that_is_killed_as_its_commit_becomes_visible_loses_nothing(
    crew: Crew,
) -> None:
    await crew.fill(600)
    async with watched(crew):
        for _ in range(3):
            victim = await crew.worker(0.05, session=2.0)
            before = sum(crew.committed.values())
            async with asyncio.timeout(60):
                while sum(crew.committed.values()) == before:
                    await asyncio.sleep(0.001)
            await victim.kill()
        await crew.worker(0.02, session=2.0)
        await crew.until("done", 600)


async def test_members_come_and_go_while_functions_run(crew: Crew) -> None:
    await crew.fill(300)
    async with watched(crew):
        first, second = await crew.worker(2.0), await crew.worker(2.0)
        await crew.until("start", 50)
        third = await crew.worker(2.0)
        await crew.until("done", 100)
        second.signal(signal.SIGTERM)
        assert await second.said("ended") == "ended 0"
        await crew.until("done", 300)
        for one in (first, third):
            one.signal(signal.SIGTERM)
            assert await one.said("ended") == "ended 0"

    assert set(crew.noted("done").values()) == {1}


async def test_a_worker_that_stood_still_settles_nothing(crew: Crew) -> None:
    await crew.fill(600)
    async with watched(crew):
        zombie = await crew.worker(0.3, session=2.0)
        await crew.until("done", 100)
        zombie.signal(signal.SIGSTOP)
        await crew.worker(0.05, session=2.0)
        await crew.until("done", 500)
        zombie.signal(signal.SIGCONT)
        await crew.until("done", 600)
        zombie.signal(signal.SIGTERM)
        await zombie.said("ended")


async def test_a_drain_loses_and_repeats_nothing(crew: Crew) -> None:
    await crew.fill(400)
    async with watched(crew):
        first = await crew.worker(0.05)
        await crew.until("done", 100)
        first.signal(signal.SIGTERM)
        assert await first.said("ended") == "ended 0"
        await crew.worker(0.02)
        await crew.until("done", 400)

    assert set(crew.noted("done").values()) == {1}


async def test_a_broker_that_is_started_again_is_found_again(engines: Engines) -> None:
    desk = await engines.desk(patience=1.0)
    await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(4)])
    reader = await desk.read(desk.other)
    held = await receive(reader, 2)
    await asyncio.to_thread(engines.kafka.stop)
    with pytest.raises(Unavailable):
        await desk.transport.publish(desk.other, [message(b"away")])
    assert await ack(reader, held) == []
    await asyncio.to_thread(engines.kafka.start)

    assert isinstance(desk.transport, KafkaTransport)
    desk.transport._patience = 30.0
    await desk.transport.publish(desk.other, [message(b"back")])

    got = await receive(reader, 4)  # "away" was under way, and is written after all
    assert bodies(got) == [b"2", b"3", b"away", b"back"]
    assert await ack(reader, got) == [] and desk.host.recalled == []
    assert await desk.behind("g", desk.other, 0)


async def test_a_broker_that_freezes_for_ten_seconds_takes_nothing_away(engines: Engines) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.other, [message(b"%d" % n) for n in range(4)])
    reader = await desk.read(desk.other)
    held = await receive(reader, 4)
    engines.kafka.signal(signal.SIGSTOP)
    try:
        assert await ack(reader, held) == []
        await asyncio.sleep(10)  # what a broker's absence is about
    finally:
        engines.kafka.signal(signal.SIGCONT)
    await desk.transport.publish(desk.other, [message(b"back")])

    assert bodies(await receive(reader, 1)) == [b"back"]
    assert desk.host.recalled == []
    assert await desk.behind("g", desk.other, 1)
