"""The inner end of every chain: bytes become the value the function asked for, or the message is
refused."""

from collections.abc import Callable

from pydantic import ValidationError

from busline.core.attempt import UNMEANT, Read
from busline.core.clock import Clock
from busline.core.codec import SURELY_FLAT, Codec, explain, is_suspect
from busline.core.errors import Invalid, Reject, RetryLater, excerpt, wrong
from busline.core.message import Delivery
from busline.core.ports import UNKNOWN_LIMIT

Unwanted = Callable[[bytes], bool]
Refuse = Callable[[Delivery, bytes, Exception], Exception]


def validation(codec: Codec, *, refuse: Refuse, unwanted: Unwanted | None = None) -> Read:
    """`refuse` says what becomes of a body that does not fit; `unwanted` knows the bodies of other
    types."""
    decode, nullable = codec.decode, codec.nullable

    def read(delivery: Delivery) -> object:
        body = delivery.body
        if body is None:
            return None if nullable else UNMEANT
        if len(body) > SURELY_FLAT and is_suspect(body):
            _check(body, codec)
        if unwanted is not None and unwanted(body):
            return UNMEANT
        try:
            return decode(body)
        except (ValidationError, RecursionError) as error:
            raise refuse(delivery, body, error) from error

    return read


def _check(body: bytes, codec: Codec) -> None:
    try:
        codec.check(body)
    except Invalid as error:
        raise Reject(str(error)) from error


def refusal(delivery: Delivery, body: bytes, error: Exception) -> Reject:
    """Why a body cannot be read, in one sentence, with a short excerpt and no more of it."""
    reason = explain(error) if isinstance(error, ValidationError) else str(error)
    remedy = "Mend the sender or the model, then redrive it."
    return Reject(
        wrong(
            "body",
            f"what '{delivery.handler}' takes",
            f"{excerpt(body)} ({reason})",
            remedy,
            place=delivery.position or delivery.id,
        )
    )


def unfamiliar(clock: Clock) -> Refuse:
    """Of a task: what has an argument that this version lacks waits for a worker that has it, as a
    job of an unknown task does; nobody in a quarter of an hour, and it is dead."""

    def refuse(delivery: Delivery, body: bytes, error: Exception) -> Exception:
        lacks = _unknown_arguments(error)
        age = clock.time() - delivery.message.since
        if not lacks or age > UNKNOWN_LIMIT:
            return refusal(delivery, body, error)
        return RetryLater(
            min(max(age / 4, 1.0), 60.0),
            f"'{delivery.handler}' has no argument {', '.join(lacks)} here: another version may"
            " have it",
        )

    return refuse


def _unknown_arguments(error: Exception) -> list[str]:
    """The names that are too many, where nothing else is wrong."""
    found = error.errors() if isinstance(error, ValidationError) else []
    names = [
        str(one["loc"][0])
        for one in found
        if one["type"] == "extra_forbidden" and len(one["loc"]) == 1
    ]
    return names if len(names) == len(found) else []
