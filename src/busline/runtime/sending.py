"""The delivery being handled, if any: what is sent meanwhile leaves with its outcome."""

from collections.abc import Collection, Sequence
from contextvars import ContextVar

from busline.core.errors import Invalid, wrong
from busline.core.ids import derived_id
from busline.core.message import Delivery, Headers, Message, check_headers
from busline.core.outcome import Effect, Send

HANDLING: ContextVar[Delivery | None] = ContextVar("busline.handling", default=None)
SENDS_LIMIT = 10_000
BYTES_LIMIT = 16 * 1024 * 1024


def handling() -> Delivery | None:
    """The delivery whose function is asking, as long as its outcome is open."""
    delivery = HANDLING.get()
    return None if delivery is None or delivery.sends is None else delivery


def inherit(names: Collection[str], messages: Sequence[Message]) -> None:
    """Hands headers of the delivery being handled on to what is sent meanwhile, where that has none of the name.
    Raises Invalid beyond 32 KiB of headers."""
    delivery = HANDLING.get()
    handed = () if delivery is None else tuple(one for one in delivery.message.headers if one[0] in names)
    for message in messages if handed else ():
        message.headers = _joined(message.headers, handed)


def _joined(own: Headers, handed: Headers) -> Headers:
    if not own:
        return handed
    known = {name for name, _ in own}
    joined = own + tuple(one for one in handed if one[0] not in known)
    check_headers(joined)
    return joined


def leave_with(delivery: Delivery, sends: list[Effect], send: Send) -> None:
    """Adds to what leaves with the outcome. Raises Invalid beyond 10,000 sends or 16 MB."""
    if len(sends) >= SENDS_LIMIT or _size(sends) + len(send.message.body or b"") > BYTES_LIMIT:
        remedy = "Send the rest at once, with now=True."
        raise Invalid(wrong(delivery.handler, "at most 10,000 sends or 16 MB in one outcome", "more", remedy))
    sends.append(send)


def _size(sends: list[Effect]) -> int:
    return sum(len(one.message.body or b"") for one in sends if isinstance(one, Send)) if len(sends) > 16 else 0


def record_job_id(delivery: Delivery, sends: list[Effect], address: str, message: Message) -> str:
    """The id of a job sent while a record is handled: the same whenever the record is handled again.

    It is made of what is sent, never of its turn: sends that swap places on another run keep their ids.
    """
    content = (delivery.position, delivery.message.at, delivery.handler, address, message.task, message.key, message.body)
    same = sum(1 for one in sends if isinstance(one, Send) and _content(one.message) == _content(message))
    return derived_id(*content, same)


def _content(message: Message) -> tuple[str, bytes | None, bytes | None]:
    return message.task, message.key, message.body
