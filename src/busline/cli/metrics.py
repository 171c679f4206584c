"""`run --http`: the page `/metrics`, for Prometheus."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import accumulate

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from busline import __version__
from busline.core.counts import Counts
from busline.middleware.metrics import BUCKETS, Metrics
from busline.runtime.bus import Bus
from busline.runtime.samples import Samples

COUNTS = {
    "handled": "Deliveries whose function returned.",
    "retried": "Attempts that failed and were followed by another.",
    "dead": "Deliveries that ended in the dead letters.",
    "skipped": "Messages that the function is not meant for.",
    "refused": "Deliveries that were finished too late, when they belonged to another worker.",
    "gaps": "Records that were gone before they were read.",
}
NOTHING = Counts()
STATES = ("waiting", "delayed", "retrying", "running")


class Exported(Collector):
    """What this process knows, when it is asked. `seen`: what runs, once it does."""

    def __init__(
        self,
        metrics: Metrics,
        seen: Callable[[], tuple[Bus, Samples] | None],
        ready: Callable[[], bool],
    ) -> None:
        self._metrics, self._seen, self._ready = metrics, seen, ready

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "busline_build_info", "The version of busline.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily("busline_ready", "1 when /readyz says so.", value=self._ready())
        yield from self._attempts()
        seen = self._seen()
        if seen is not None:
            bus, samples = seen
            yield from _counts(bus)
            yield _running(bus)
            yield from _sampled(samples)

    def _attempts(self) -> Iterator[Metric]:
        duration = HistogramMetricFamily(
            "busline_duration_seconds", "Seconds that one attempt took.", labels=["handler"]
        )
        failed = CounterMetricFamily("busline_failed", "Attempts that failed.", labels=["handler"])
        labels = ["handler", "error_type"]
        errors = CounterMetricFamily(
            "busline_errors", "Attempts that failed, by the type of their error.", labels=labels
        )
        for name, one in list(self._metrics.handlers.items()):
            bounds = [*map(str, BUCKETS), "+Inf"]
            duration.add_metric(
                [name], list(zip(bounds, accumulate(one.took), strict=True)), one.total
            )
            failed.add_metric([name], one.failed)
            for error, count in list(one.errors.items()):
                errors.add_metric([name, error], count)
        yield from (duration, failed, errors)


def _counts(bus: Bus) -> Iterator[Metric]:
    for what, text in COUNTS.items():
        family = CounterMetricFamily(f"busline_{what}", text, labels=["handler"])
        for name in _handlers(bus):
            family.add_metric([name], getattr(bus.counts.get(name, NOTHING), what))
        yield family


def _handlers(bus: Bus) -> list[str]:
    """All that this process runs: each is told from the beginning, so that a rise from 0 is
    seen."""
    return list(
        dict.fromkeys(
            handler.name for worker in bus.workers for handler in worker.work.handlers.values()
        )
    )


def _running(bus: Bus) -> Metric:
    family = GaugeMetricFamily("busline_in_flight", "Functions that run now.", labels=["handler"])
    running = Counter(name for worker in bus.workers for name in worker.running())
    for name in _handlers(bus):
        family.add_metric([name], running[name])
    return family


def _sampled(samples: Samples) -> Iterator[Metric]:
    """The same in every process that serves them: take the maximum, not the sum."""
    if samples.at is None:
        return
    yield GaugeMetricFamily(
        "busline_sample_age_seconds",
        "Seconds since the figures of queues and groups were asked for.",
        value=time.monotonic() - samples.at,
    )
    depth = GaugeMetricFamily(
        "busline_queue_depth", "Jobs of a queue, by state.", labels=["queue", "state"]
    )
    oldest = GaugeMetricFamily(
        "busline_queue_oldest_seconds",
        "Seconds for which the first job in the queue has waited; 0 when none waits.",
        labels=["queue"],
    )
    for queue, one in samples.depth.items():
        for state in STATES:
            depth.add_metric([queue, state], getattr(one, state))
        oldest.add_metric([queue], one.age(time.time()) or 0.0)
    lag = GaugeMetricFamily(
        "busline_lag", "Records that a group has not finished.", labels=["group", "topic"]
    )
    for each in samples.lag:
        lag.add_metric([each.group, each.topic], each.behind)
    frontier = GaugeMetricFamily(
        "busline_frontier_age_seconds",
        "Seconds since the oldest record that this process holds was published.",
        labels=["group"],
    )
    for group, age in samples.frontier.items():
        frontier.add_metric([group], age)
    dead = GaugeMetricFamily("busline_dead", "Dead letters that stand.", labels=["handler"])
    for handler, count in samples.dead.items():
        dead.add_metric([handler], count)
    yield from (depth, oldest, lag, frontier, dead)


@contextmanager
def exported(collector: Exported) -> Generator[None]:
    """Among the process's own metrics, while it is entered."""
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


def text() -> str:
    """All metrics of the process, also the user's own, in Prometheus's text format."""
    return generate_latest(REGISTRY).decode()
