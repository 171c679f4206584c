"""How long each message took, said line by line: only where the log is at the level debug."""

import logging
from time import perf_counter

from busline.core.attempt import UNMEANT
from busline.core.chain import CallNext, Middleware
from busline.core.message import Delivery

log = logging.getLogger("busline")


def timing(handler: str, group: str | None) -> Middleware:
    """The layer around a handler. Of an attempt that failed others tell."""

    async def timing(delivery: Delivery, call_next: CallNext) -> object:
        begun = perf_counter()
        value = await call_next(delivery)
        took = (perf_counter() - begun) * 1000
        log.debug(
            "'%s' %s, attempt %d, %s in %.1f ms",
            handler,
            delivery.position or delivery.id,
            delivery.attempt,
            "skipped" if value is UNMEANT else "handled",
            took,
            extra={"milliseconds": round(took, 3)},
        )
        return value

    return timing
