"""The delivery being handled, if any: what is sent meanwhile leaves with its outcome."""

from asyncio import _get_running_loop
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

from busline.core.errors import Invalid, wrong
from busline.core.ids import derived_id
from busline.core.message import Delivery, Headers, Message, check_headers
from busline.core.outcome import Effect, Send

P = ParamSpec("P")
R = TypeVar("R")
HANDLING: ContextVar[Delivery | None] = ContextVar("busline.handling", default=None)
SENDS_LIMIT = 10_000
BYTES_LIMIT = 16 * 1024 * 1024


def handling() -> Delivery | None:
    """The delivery whose function is asking, as long as its outcome is open."""
    delivery = HANDLING.get()
    return None if delivery is None or delivery.sends is None else delivery


def awaited_in_loop(send: Callable[P, R]) -> Callable[P, R]:
    """A coroutine function that refuses to be called where nobody can await it: in a thread, by a
    plain `def` handler, where the call would do nothing, in silence."""

    @wraps(send)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        delivery = HANDLING.get()
        if delivery is not None and _get_running_loop() is None:
            remedy = "Make the function `async def`, and await what it sends."
            raise Invalid(
                wrong(
                    delivery.handler,
                    f"a function that can await `{send.__name__}`",
                    "a plain `def`, in a thread",
                    remedy,
                )
            )
        return send(*args, **kwargs)

    return call


def inherit(names: Collection[str], messages: Sequence[Message]) -> None:
    """Hands headers of the delivery being handled on to what is sent meanwhile, where that has none
    of the name. Raises Invalid beyond 32 KiB of headers."""
    delivery = HANDLING.get()
    handed = (
        ()
        if delivery is None
        else tuple(one for one in delivery.message.headers if one[0] in names)
    )
    for message in messages if handed else ():
        message.headers = _joined(message.headers, handed)


def _joined(own: Headers, handed: Headers) -> Headers:
    if not own:
        return handed
    known = {name for name, _ in own}
    joined = own + tuple(one for one in handed if one[0] not in known)
    check_headers(joined)
    return joined


class Sends(list[Effect]):
    """What an attempt has put aside: it leaves with its outcome. Made for each attempt, so empty it
    costs next to nothing."""

    size = 0  # bytes of bodies
    same: Counter[object] | None = None  # how many jobs of equal content a record has sent so far


def leave_with(delivery: Delivery, sends: Sends, send: Send) -> None:
    """Adds to what leaves with the outcome. Raises Invalid beyond 10,000 sends or 16 MB."""
    size = sends.size + len(send.message.body or b"")
    if len(sends) >= SENDS_LIMIT or size > BYTES_LIMIT:
        remedy = "Send the rest at once, with now=True."
        raise Invalid(
            wrong(delivery.handler, "at most 10,000 sends or 16 MB in one outcome", "more", remedy)
        )
    sends.size = size
    sends.append(send)


def record_job_id(delivery: Delivery, sends: Sends, address: str, message: Message) -> str:
    """The id of a job sent while a record is handled: the same whenever the record is handled
    again.

    It is made of what is sent, never of its turn: sends that swap places on another run keep their
    ids."""
    content = (address, message.task, message.key, message.body)
    if sends.same is None:
        sends.same = Counter()
    turn = sends.same[content]
    sends.same[content] += 1
    return derived_id(delivery.position, delivery.message.at, delivery.handler, *content, turn)
