"""What a job leaves behind: what its function returned, or why it died."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from busline.core.causes import told
from busline.core.codec import Codec
from busline.core.errors import Invalid, Reject
from busline.core.facts import failure, result_key, success
from busline.core.handler import Collect
from busline.core.message import Delivery
from busline.core.outcome import Keep, Rejected


def keeper(codec: Codec, ttl: float) -> Collect:
    """Keeps what the function returned for `ttl` seconds, together with the outcome."""

    def keep(delivery: Delivery, value: Any) -> None:
        try:
            encoded = codec.encode(value)
        except Invalid as error:
            raise Reject(str(error)) from error
        if delivery.sends is not None:
            delivery.sends.append(Keep(result_key(delivery.id), success(encoded), ttl))

    return keep


def failure_keeper(ttl: float) -> Callable[[Delivery, Rejected], Rejected]:
    """Keeps why a job died, for those who wait for its result."""

    def bury(delivery: Delivery, outcome: Rejected) -> Rejected:
        kept = failure(told(outcome.error), outcome.reason, delivery.attempt)
        keep = Keep(result_key(delivery.id), kept, ttl)
        return replace(outcome, effects=(*outcome.effects, keep))

    return bury
