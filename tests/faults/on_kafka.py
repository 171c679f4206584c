"""Attacks on a cluster of three brokers: one of them killed, all started again, members that come,
go and are killed."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from busline import Kafka
from busline.transports.kafka import KafkaTransport
from tests.faults.attacked import Item, Streams, key_of
from tests.faults.field import BUSY, Field
from tests.faults.judge import Commit, Promise
from tests.faults.on_sqlite import numbered
from tests.servers import kafka as servers

COMMITTED = 0.25 + BUSY  # seconds between a function's end and the commit
SESSION = 3
LOOK = 0.05


class Records(Field):
    promise = Promise(COMMITTED, "run")
    app, work = Streams.PATH, ("--only", "work")
    session = SESSION

    def __init__(self, folder: Path, cluster: servers.Kafka, mark: str) -> None:
        super().__init__(
            folder,
            BUSLINE_STREAMS=f"{cluster.url}?session={self.session}&create_topics=1",
            ATTACK_MARK=mark,
        )
        self.cluster = cluster
        self.streams = Streams(
            mark, Kafka(*(node.server for node in cluster.nodes), create_topics=True)
        )
        self.admin = AIOKafkaAdminClient(bootstrap_servers=cluster.server, request_timeout_ms=4000)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        await self.admin.start()
        try:
            async with self.streams.app:
                yield
        finally:
            await self.admin.close()

    async def publish(self, numbers: range) -> None:
        await self.streams.app.publish_many(
            self.streams.records, [Item(n=n, key=key_of(n)) for n in numbers]
        )

    async def watch(self) -> None:
        """As another client. What it cannot see for a while it sees later."""
        while True:
            try:
                found = await self.admin.list_consumer_group_offsets(self.streams.group)
                at = time.monotonic()
                self.commits += [
                    Commit(at, f"{topic}/{part}", one.offset)
                    for (topic, part), one in found.items()
                ]
            except (KafkaError, OSError, TimeoutError):
                pass  # its coordinator is away
            await asyncio.sleep(LOOK)

    async def left(self) -> tuple[int, dict[int, str]]:
        async with KafkaTransport(self.cluster.url) as engine:
            lags = await engine.inspector.lag([self.streams.group])
            return sum(one.behind for one in lags), numbered(
                await engine.inspector.dead(limit=10_000)
            )


class Brokers(Records):
    """The cluster itself is attacked."""

    promise = Promise(COMMITTED, "more")
    session = 30  # no worker dies: a busy machine is not to make one look so

    async def leader(self) -> int:
        """Of the first partition."""
        (topic,) = await self.admin.describe_topics([self.streams.records.name])
        leader: int = topic["partitions"][0]["leader"]
        return leader

    async def coordinator(self) -> int:
        """Of the group."""
        coordinator: int = await self.admin.find_coordinator(self.streams.group)
        return coordinator

    async def controller(self) -> int:
        said = await asyncio.to_thread(self.cluster.tool, "quorum", "describe", "--status")
        (line,) = [one for one in said.splitlines() if one.startswith("LeaderId:")]
        return int(line.split()[1])

    async def away(self, number: int, end: Callable[[servers.Node], None]) -> None:
        """This broker ends and is started again; then waits until every copy is complete."""
        node = self.cluster.nodes[number - 1]
        at = time.monotonic()
        await asyncio.to_thread(end, node)
        node.begin()
        await asyncio.to_thread(node.listening)
        self.note(at)
        await self.whole()

    async def whole(self) -> None:
        """Until every partition has all its copies."""
        async with asyncio.timeout(90):
            while not await self._is_whole():
                await asyncio.sleep(0.1)

    async def _is_whole(self) -> bool:
        try:
            topics = await self.admin.describe_topics()
        except (KafkaError, OSError, TimeoutError):
            return False
        return all(
            len(part["isr"]) == len(self.cluster.nodes)
            for topic in topics
            for part in topic["partitions"]
        )


async def leader_killed(field: Brokers) -> None:
    await asyncio.sleep(1)
    await field.away(await field.leader(), servers.Node.kill)


async def coordinator_killed(field: Brokers) -> None:
    await asyncio.sleep(1)
    await field.away(await field.coordinator(), servers.Node.kill)


async def controller_killed(field: Brokers) -> None:
    await field.away(await field.controller(), servers.Node.kill)


async def rolling_restart(field: Brokers) -> None:
    """The next broker, in good order."""
    turn = len(field.faults) % len(field.cluster.nodes)
    await field.away(turn + 1, servers.Node.stop)


async def members_come_and_go(field: Records) -> None:
    at = time.monotonic()
    await field.join()
    field.note(at)
    at = time.monotonic()
    await field.part(field.any_worker(), signal.SIGTERM)
    field.note(at)


async def worker_killed(field: Records) -> None:
    await asyncio.sleep(1)
    await field.kill()
    await asyncio.sleep(SESSION)
