"""What went wrong with a cluster, in busline's own errors: whose fault it is, and what to do."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

from aiokafka import errors as kafka
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from busline.core.errors import BuslineError, ConfigError, Invalid, Unavailable, wrong
from busline.transports.kafka.client import InvalidRecordError

UNKNOWN = "What was sent may still be written: sent again, it may be there twice."
ANSWER = 4.0  # seconds a server has to answer one question
FORBIDDEN = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
)


@contextmanager
def told(name: str) -> Generator[None]:
    """Raises in busline's own errors what the client raises about `name`."""
    try:
        yield
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        raise translated(name, error) from error


@asynccontextmanager
async def within(name: str, seconds: float) -> AsyncGenerator[None]:
    """Raises Unavailable for what takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable(
            wrong(name, f"a confirmation within {seconds:g} s", "none", UNKNOWN)
        ) from None


def translated(name: str, error: BaseException) -> BuslineError:
    """The same error, for people. Invalid is only what lies in the message, ConfigError what
    somebody has to mend."""
    if isinstance(error, BuslineError):
        return error
    if isinstance(error, FORBIDDEN):
        return ConfigError(
            [
                wrong(
                    name,
                    "the right to use it",
                    _kind(error),
                    "Grant this user READ, WRITE and DESCRIBE on it (kafka-acls).",
                )
            ]
        )
    if isinstance(error, kafka.InconsistentGroupProtocolError):
        remedy = (
            "Stop them first: members with another way of sharing partitions cannot be in one"
            " group."
        )
        return Invalid(
            wrong(name, "a group of busline's members", "living members of another client", remedy)
        )
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
        return Invalid(
            wrong(
                name,
                "a record that the topic takes",
                "a larger one",
                "Raise the topic's max.message.bytes, or send less.",
            )
        )
    if isinstance(error, InvalidRecordError):
        return Invalid(
            wrong(
                name,
                "a record that the topic takes",
                "one that it does not",
                "Give it a key if the topic is compacted.",
            )
        )
    return Unavailable(
        wrong(name, "an answer in time", _kind(error), "Look whether the cluster is well.")
    )


def _kind(error: BaseException) -> str:
    return type(error).__name__.removesuffix("Error") or "an error"


async def explain(servers: Sequence[str]) -> BuslineError:
    """Why none of the servers let us in: the client hides it, so each is asked directly."""
    found = [f"{server}: {await _ask(server)}" for server in servers]
    remedy = (
        "Look whether the cluster runs, and whether this is a listener without TLS and passwords."
    )
    return Unavailable(wrong("kafka", "a server that answers", "; ".join(found), remedy))


async def _ask(server: str) -> str:
    parts = urlsplit(f"//{server}")
    try:
        async with asyncio.timeout(ANSWER):
            connection = await create_conn(
                parts.hostname, parts.port, request_timeout_ms=int(ANSWER * 1000)
            )
            try:
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        return _reason(error)
    return "answers now"


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, TimeoutError | kafka.RequestTimedOutError):
        return f"no answer within {ANSWER:g} s"
    cause = error.__cause__
    if isinstance(error, kafka.KafkaConnectionError) or isinstance(
        cause, asyncio.IncompleteReadError
    ):
        return (
            "it hung up at the first question, so it expects TLS, a password, or does not speak"
            " Kafka"
        )
    return f"{type(error).__name__} {error}".strip()
