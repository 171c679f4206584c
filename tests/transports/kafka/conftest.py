"""Transports on one broker, closed when the test ends; topics and groups of this test alone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from busline.core.ids import new_id
from busline.testing.clock import SimClock
from busline.testing.contract import Desk
from busline.transports.kafka import KafkaTransport
from tests.servers.kafka import Kafka


class Engines:
    """Opens transports, each as another process would."""

    def __init__(self, kafka: Kafka, stack: AsyncExitStack) -> None:
        self.kafka, self.clock, self.mark, self._stack = kafka, SimClock(), f"-{new_id()}", stack

    async def open(
        self,
        *,
        create_topics: bool = True,
        session: float = 30.0,
        drain: float = 10.0,
        patience: float = 30.0,
    ) -> KafkaTransport:
        transport = KafkaTransport(
            self.kafka.url,
            clock=self.clock,
            create_topics=create_topics,
            session=session,
            drain=drain,
            patience=patience,
        )
        return await self._stack.enter_async_context(transport)

    async def desk(
        self, *, session: float = 30.0, drain: float = 10.0, patience: float = 30.0
    ) -> Desk:
        desk = Desk(
            await self.open(session=session, drain=drain, patience=patience), self.clock, self.mark
        )
        self._stack.push_async_callback(desk.stack.aclose)
        return desk

    async def admin(self) -> AIOKafkaAdminClient:
        """The client's own, to do what others do to a cluster."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.server)
        await admin.start()
        self._stack.push_async_callback(admin.close)
        return admin


async def forbid(engines: Engines, kind: str, name: str, what: str = "--add") -> None:
    """Leaves a topic or a group to somebody else; `--remove`: to everybody again."""
    force = ("--force",) if what == "--remove" else ()
    rule = ("--allow-principal", "User:somebody", "--operation", "All", f"--{kind}", name)
    await asyncio.to_thread(engines.kafka.tool, "acls", what, *force, *rule)


@pytest.fixture
async def engines(kafka: Kafka) -> AsyncGenerator[Engines]:
    async with AsyncExitStack() as stack:
        yield Engines(kafka, stack)


@pytest.fixture
async def desk(engines: Engines) -> Desk:
    return await engines.desk()
