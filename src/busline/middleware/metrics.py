"""How long attempts take and how many fail, kept by handler for whoever shows it."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

from busline.core.causes import has_failed, leaf
from busline.core.chain import CallNext, Middleware
from busline.core.message import TIMEOUT, Delivery

BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)  # seconds


@dataclass(slots=True)
class Attempts:
    """One handler's. `took`: how many ended within each of BUCKETS, and after them all; `total`:
    their seconds together; `errors`: how many failed, by the type of the error."""

    took: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])


class Metrics:
    """Attempts by handler. One thread writes, others may read."""

    def __init__(self) -> None:
        self.handlers: dict[str, Attempts] = {}

    def around(self, handler: str, group: str | None) -> Middleware:
        """The layer around one handler."""
        known = self.handlers.setdefault(handler, Attempts())
        took = known.took

        async def metrics(delivery: Delivery, call_next: CallNext) -> object:
            begun = perf_counter()
            try:
                return await call_next(delivery)
            except BaseException as error:  # counted, and goes on
                if not delivery.cut_off and has_failed(error):
                    known.failed += 1
                    known.errors[
                        "TimeoutError" if delivery.cut == TIMEOUT else type(leaf(error)).__name__
                    ] += 1
                raise
            finally:
                seconds = perf_counter() - begun
                took[bisect_left(BUCKETS, seconds)] += 1
                known.total += seconds

        return metrics
