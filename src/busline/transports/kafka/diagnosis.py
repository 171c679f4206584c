"""What went wrong with a cluster, in busline's own errors: whose fault it is, and what to do."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from aiokafka import errors as kafka

from busline.core.errors import BuslineError, ConfigError, Invalid, Unavailable, wrong

UNKNOWN = "What was sent may still be written: sent again, it may be there twice."
FORBIDDEN = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
)


class InvalidRecordError(kafka.BrokerResponseError):  # type: ignore[misc]  # a library without types
    """An answer that the client has no name for: the topic does not take such a record."""

    errno = 87
    message = "INVALID_RECORD"


kafka.kafka_errors[InvalidRecordError.errno] = InvalidRecordError


@contextmanager
def translating(where: str) -> Generator[None]:
    """Raises in busline's own errors what the client raises about `where`."""
    try:
        yield
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        raise translated(error, where) from error


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


def translated(error: BaseException, where: str) -> BuslineError:
    """The same error, for people. Invalid is only what lies in the message, ConfigError what
    somebody has to mend."""
    if isinstance(error, BuslineError):
        return error
    if isinstance(error, FORBIDDEN):
        return ConfigError(
            [
                wrong(
                    where,
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
            wrong(where, "a group of busline's members", "living members of another client", remedy)
        )
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
        return Invalid(
            wrong(
                where,
                "a record that the topic takes",
                "a larger one",
                "Raise the topic's max.message.bytes, or send less.",
            )
        )
    if isinstance(error, InvalidRecordError):
        return Invalid(
            wrong(
                where,
                "a record that the topic takes",
                "one that it does not",
                "Give it a key if the topic is compacted.",
            )
        )
    return Unavailable(
        wrong(where, "an answer in time", _kind(error), "Look whether the cluster is well.")
    )


def _kind(error: BaseException) -> str:
    return type(error).__name__.removesuffix("Error") or "an error"


def reason(error: BaseException, seconds: float) -> str:
    """Why a server did not answer within this time."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, TimeoutError | kafka.RequestTimedOutError):
        return f"no answer within {seconds:g} s"
    cause = error.__cause__
    if isinstance(error, kafka.KafkaConnectionError) or isinstance(
        cause, asyncio.IncompleteReadError
    ):
        return (
            "it hung up at the first question, so it expects TLS, a password, or does not speak"
            " Kafka"
        )
    return f"{type(error).__name__} {error}".strip()
