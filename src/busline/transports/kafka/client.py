"""The client library's parts. It has no types of its own, and where it stops this transport reaches
inside: a test names every attribute that is used."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from busline.transports.kafka.wire import Record

T = TypeVar("T")
PAUSE = 0.1  # seconds
own = logging.getLogger("aiokafka")
if (
    own.level == logging.NOTSET
    # it tells each try, and at length what busline says in its own words; who wants that sets its
    # level
):
    own.setLevel(logging.CRITICAL)
# reads every codec but gzip: the client uses it where it is there, and here it has to be
import_module("cramjam")


class InvalidRecordError(kafka.BrokerResponseError):  # type: ignore[misc]  # a library without types
    """An answer that the client has no name for: the topic does not take such a record."""

    errno = 87
    message = "INVALID_RECORD"


kafka.kafka_errors[InvalidRecordError.errno] = InvalidRecordError


def consumer(servers: Sequence[str], **settings: Any) -> Any:
    return AIOKafkaConsumer(bootstrap_servers=",".join(servers), **settings)


async def started(consumer: Any) -> Any:
    """The consumer, with nothing left open where it cannot be started."""
    try:
        await consumer.start()
    except BaseException:  # cancelled or refused, nothing of it stays open
        await consumer.stop()
        raise
    return consumer


def producer(servers: Sequence[str], **settings: Any) -> Any:
    made: Any = AIOKafkaProducer(bootstrap_servers=",".join(servers), **settings)
    made.client._metadata_update = paced(made.client._metadata_update)
    return made


def paced(ask: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """The same question, with a pause between two: while a partition has no leader the client asks
    without any."""
    last = float("-inf")

    async def again(*arguments: Any) -> T:
        nonlocal last
        await asyncio.sleep(max(0.0, last + PAUSE - time.monotonic()))
        last = time.monotonic()
        return await ask(*arguments)

    return again


class Batch(BatchBuilder):  # type: ignore[misc]  # a library without types
    """The client's batch, filled by many records at a time. The client would compress all batches,
    or none."""

    _relative_offset: int

    def __init__(self, size: int, compress: bool) -> None:
        super().__init__(
            size, DefaultRecordBatch.CODEC_GZIP if compress else DefaultRecordBatch.CODEC_NONE
        )

    def fill(self, records: Iterable[Record]) -> bool:
        """Whether there was room for all of them; `record_count` says how many are in, also when
        one is raised that the client cannot write."""
        append, count = self._builder.append, self._relative_offset
        try:
            for at, key, body, headers in records:
                if append(count, at, key, body, headers) is None:
                    return False
                count += 1
        finally:
            self._relative_offset = count
        return True


def admin(servers: Sequence[str], **settings: Any) -> Any:
    return AIOKafkaAdminClient(bootstrap_servers=",".join(servers), **settings)


def listens(kind: type[T]) -> type[T]:
    """Lets the client accept instances of this class as listeners."""
    ConsumerRebalanceListener.register(kind)
    return kind
