"""How long each message took, said line by line: only where the log is at the level debug."""

import logging
from collections.abc import Callable
from time import perf_counter

from busline.core.chain import CallNext, Middleware
from busline.core.message import Delivery

log = logging.getLogger("busline")


def timing(skipped: object) -> Callable[[str, str | None], Middleware]:
    """Makes the layer around a handler. Of an attempt that failed others tell. `skipped`: the value
    that means the function did not run."""

    def around(handler: str, group: str | None) -> Middleware:
        async def timing(delivery: Delivery, call_next: CallNext) -> object:
            begun = perf_counter()
            value = await call_next(delivery)
            took = (perf_counter() - begun) * 1000
            what, place = (
                "skipped" if value is skipped else "handled",
                delivery.position or delivery.id,
            )
            extra = {"milliseconds": round(took, 3)}
            log.debug(
                "'%s' %s, attempt %d, %s in %.1f ms",
                handler,
                place,
                delivery.attempt,
                what,
                took,
                extra=extra,
            )
            return value

        return timing

    return around
