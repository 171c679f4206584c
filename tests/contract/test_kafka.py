"""Kafka passes the contract."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest

from busline.core.ids import new_id
from busline.core.ports import Transport
from busline.testing.clock import SimClock
from busline.testing.contract import Open, Topics
from busline.transports.kafka import KafkaTransport
from tests.servers.kafka import Kafka


@pytest.fixture
async def engine(clock: SimClock, kafka: Kafka) -> AsyncGenerator[Open]:
    async with AsyncExitStack() as stack:

        async def engine() -> Transport:
            return await stack.enter_async_context(
                KafkaTransport(kafka.url, clock=clock, create_topics=True)
            )

        yield engine


class TestKafka(Topics):
    @pytest.fixture
    def mark(self) -> str:
        return f"-{new_id()}"
