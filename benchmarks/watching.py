"""What it costs to be watched: metrics, tracing, and for comparison a span that the function makes
itself."""

import time
from collections.abc import Awaitable, Callable, Mapping

from opentelemetry import propagate
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from benchmarks.memory import until
from benchmarks.shop import Order, orders, values
from busline import App, Delivery
from busline.app import Setting
from busline.core.clock import SystemClock
from busline.middleware.metrics import Metrics
from busline.runtime.engines import Engines
from busline.transports.memory import MemoryTransport

PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
Function = Callable[[Order, Delivery], Awaitable[None]]


class Nowhere(SpanExporter):
    """Takes spans and drops them: what they cost to send is not ours."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def provider() -> TracerProvider:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(Nowhere()))
    return made


async def each(count: int) -> Mapping[str, float]:
    """Seconds for `count` messages, published before, by what watches them."""
    ids = set[str]()

    async def plain(order: Order, delivery: Delivery) -> None:
        ids.add(order.id)

    tracer = provider().get_tracer("own")

    async def spanned(order: Order, delivery: Delivery) -> None:
        parent = propagate.extract(delivery.headers)
        attributes = {
            "messaging.system": "memory", "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": delivery.address, "messaging.message.id": delivery.id,
        }  # fmt: skip
        with tracer.start_as_current_span("process orders", parent, SpanKind.CONSUMER, attributes):
            ids.add(order.id)

    found = {}
    for name, function, watch in (
        ("plain", plain, {}), ("metrics", plain, {"metrics": Metrics()}), ("span", spanned, {}),
        ("tracing", plain, {"tracer_provider": provider()}),
    ):  # fmt: skip
        ids.clear()
        found[name] = await _took(count, function, lambda: len(ids) == count, watch)
    return found


async def _took(
    count: int, function: Function, done: Callable[[], bool], watch: Mapping[str, object]
) -> float:
    app = App("bench")
    app.subscriber(orders, order="key", name="handle")(function)
    engine = MemoryTransport()
    async with app.running_with(Setting(Engines(engine, engine), SystemClock(), **watch)):  # type: ignore[arg-type]  # the fields by name
        await app.publish_many(orders, values(count), headers=PARENT)
        begun = time.perf_counter()
        await until(done)
        return time.perf_counter() - begun
