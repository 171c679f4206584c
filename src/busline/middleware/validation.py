"""The inner end of every chain: bytes become the value the function asked for, or the message is refused."""

from collections.abc import Callable

from pydantic import ValidationError

from busline.core.chain import Step
from busline.core.codec import BODY_LIMIT, Codec, check, explain
from busline.core.errors import Invalid, Reject, excerpt, wrong
from busline.core.function import UNFINISHED
from busline.core.handler import Ending, Invoke
from busline.core.message import Delivery


class Skipped:
    """What a chain returns for a message that its function is not meant for."""

    def __repr__(self) -> str:
        return "SKIPPED"


SKIPPED = Skipped()
Unwanted = Callable[[bytes], bool]


def validation(codec: Codec, invoke: Invoke, ending: Ending, *, unwanted: Unwanted | None = None) -> Step:
    """`unwanted` knows the bodies of other types."""
    decode, count = codec.decode, bytes.count
    collect, take = ending.collect, ending.take

    async def validation(delivery: Delivery) -> object:
        body = delivery.message.body
        if body is None:
            if not codec.nullable:
                return SKIPPED
            value = None
        else:
            if len(body) > BODY_LIMIT or count(body, b"[") + count(body, b"{") > 64:
                _check(body, codec)
            if unwanted is not None and unwanted(body):
                return SKIPPED
            try:
                value = decode(body)
            except (ValidationError, RecursionError) as error:
                raise refusal(delivery, body, error) from error
        given = await invoke(delivery, value)
        if given is not None and isinstance(given, UNFINISHED):
            return await take(delivery, given)
        if collect is not None:
            collect(delivery, given)
        return given

    return validation


def _check(body: bytes, codec: Codec) -> None:
    try:
        check(body, codec.name)
    except Invalid as error:
        raise Reject(str(error)) from error


def refusal(delivery: Delivery, body: bytes, error: Exception) -> Reject:
    """Why a body cannot be read, in one sentence, with a short excerpt and no more of it."""
    reason = explain(error) if isinstance(error, ValidationError) else str(error)
    remedy = "Mend the sender or the model, then redrive it."
    return Reject(wrong("body", f"what '{delivery.handler}' takes", f"{excerpt(body)} ({reason})", remedy, place=delivery.position or delivery.id))
