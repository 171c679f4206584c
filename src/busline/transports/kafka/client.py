"""The client library's parts. It has no types of its own, and where it stops this transport reaches inside: a test names
every attribute that is used."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient

T = TypeVar("T")
import_module("cramjam")  # reads every codec but gzip: the client uses it where it is there, and here it has to be


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
    return AIOKafkaProducer(bootstrap_servers=",".join(servers), **settings)


def admin(servers: Sequence[str], **settings: Any) -> Any:
    return AIOKafkaAdminClient(bootstrap_servers=",".join(servers), **settings)


def listens(kind: type[T]) -> type[T]:
    """Lets the client accept instances of this class as listeners."""
    ConsumerRebalanceListener.register(kind)
    return kind
