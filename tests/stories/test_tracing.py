"""Every attempt is a span of its own: under the one that sent the message, linked to the attempt
before it."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.aiokafka import AIOKafkaInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from busline import App, Delivery, Reject, Retry, RetryLater, Topic
from tests.stories.conftest import Story, Tell
from tests.stories.test_streams import Item

items = Topic("items", Item, key="n", partitions=1)
maybe = Topic("maybe", Item | None, partitions=1)
SENDER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traces:
    """The spans that were made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        found = [span for span in self._exporter.get_finished_spans() if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    instrumentors = AIOKafkaInstrumentor(), RedisInstrumentor()
    for one in instrumentors:
        one.instrument(tracer_provider=traces.provider)
    yield traces
    for one in instrumentors:
        one.uninstrument()


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id  # type: ignore[union-attr]  # a finished span has one


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_a_record_and_its_job_are_one_trace(tell: Tell, traces: Traces) -> None:
    app, runs = App("a"), list[int]()

    @app.task(retry=Retry(3, delay=1, jitter=False), keep_result=60)
    async def work(n: int) -> int:
        runs.append(n)
        if len(runs) < 3:
            raise ConnectionError("not yet")
        return n

    @app.subscriber(items)
    async def handle(item: Item) -> None:
        await work.enqueue(item.n)

    async with tell(app, tracer_provider=traces.provider) as story:
        with traces.provider.get_tracer("web").start_as_current_span("POST /items"):
            await story.publish(items, Item(n=1))
        await story.advance(10)
        await story.settled()
        job = await work.enqueue(9)
        assert await job.result(10) == 9

    (root,), (sent,), (handled,), (created,) = (
        traces.named(name) for name in ("POST /items", "send items", "process items", "create a")
    )
    first, second, third, _ = traces.named("process a")
    assert [parent_of(one) for one in (sent, handled, created)] == [
        id_of(root),
        id_of(sent),
        id_of(handled),
    ]
    assert {parent_of(one) for one in (first, second, third)} == {id_of(created)}
    assert [[link.context.span_id for link in one.links] for one in (first, second, third)] == [
        [],
        [id_of(first)],
        [id_of(second)],
    ]
    assert {
        one.get_span_context().trace_id  # type: ignore[union-attr]  # as above
        for one in (sent, handled, created, first, second, third)
    } == {root.get_span_context().trace_id}  # type: ignore[union-attr]  # as above
    assert [one.status.status_code for one in (first, second, third)] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert [len(traces.named(name)) for name in ("send a", "receive a")] == [1, 1]
    assert len(traces.all()) == 10, "and not one from the clients' own instrumentations"
    check(story, sent, handled, created, first, third)


def check(
    story: Story,
    sent: ReadableSpan,
    handled: ReadableSpan,
    created: ReadableSpan,
    first: ReadableSpan,
    third: ReadableSpan,
) -> None:
    """Kinds and attributes, as the conventions have them."""
    streams, jobs = (
        {"messaging.system": engine.system} | server(engine.server)
        for engine in (story.streams, story.jobs)
    )
    on_kafka = {"messaging.kafka.message.key": "1"} if story.streams.system == "kafka" else {}
    id, job = attributes(handled)["messaging.message.id"], attributes(first)["messaging.message.id"]
    assert [one.kind for one in (sent, handled, created, first)] == [
        SpanKind.PRODUCER,
        SpanKind.CONSUMER,
        SpanKind.PRODUCER,
        SpanKind.CONSUMER,
    ]
    assert attributes(sent) == operation("send", "items") | streams | on_kafka | {
        "messaging.message.id": id
    }
    offset = {"messaging.kafka.offset": 0} if on_kafka else {}
    assert attributes(handled) == operation("process", "items") | streams | on_kafka | offset | {
        "messaging.message.id": id, "messaging.consumer.group.name": "a.handle",
        "messaging.destination.partition.id": "0",
        "busline.handler": "handle", "busline.attempt": 1,
    }  # fmt: skip
    assert attributes(created) == operation("create", "a") | jobs | {
        "messaging.message.id": job,
        "busline.task": "work",
    }
    assert attributes(third) == operation("process", "a") | jobs | {
        "messaging.message.id": job,
        "busline.task": "work",
        "busline.handler": "work",
        "busline.attempt": 3,
    }
    assert (
        attributes(first)["error.type"] == "ConnectionError" and first.events[0].name == "exception"
    )


def operation(name: str, destination: str) -> dict[str, object]:
    return {
        "messaging.operation.name": name,
        "messaging.operation.type": name,
        "messaging.destination.name": destination,
    }


def server(place: tuple[str, int] | None) -> dict[str, object]:
    return {} if place is None else {"server.address": place[0], "server.port": place[1]}


@pytest.mark.parametrize(
    "sender",
    [
        None,
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"00-00000000000000000000000000000000-0000000000000000-01",
    ],
)
async def test_without_a_sound_parent_a_trace_begins(
    tell: Tell, traces: Traces, sender: bytes | None
) -> None:
    app, seen = App("a"), list[Item | None]()

    @app.subscriber(maybe)
    async def handle(item: Item | None) -> None:
        seen.append(item)

    async with tell(app, tracer_provider=traces.provider) as story:
        with traces.provider.get_tracer("other").start_as_current_span("unrelated"):
            await story.deliver(maybe, None, headers=[("traceparent", sender)])
            await story.deliver(
                maybe, b'{"n": 1}', key="\u00e9", headers=[("traceparent", SENDER.encode())]
            )
            await story.deliver(maybe, b'{"n": 2}')

    broken, known, none = traces.named("process maybe")
    assert [one.n if one else None for one in seen] == [None, 1, 2]
    assert (broken.parent, none.parent) == (None, None)
    assert (
        known.parent is not None
        and trace.format_span_id(known.parent.span_id) == SENDER.split("-")[2]
    )
    assert attributes(broken).get("messaging.kafka.message.tombstone") is (
        True if story.streams.system == "kafka" else None
    )
    assert all(
        isinstance(value, str | int | bool)
        for span in traces.all()
        for value in attributes(span).values()
    )


async def test_retries_in_the_lane_are_linked_and_a_redriven_record_goes_on_in_its_trace(
    tell: Tell, traces: Traces
) -> None:
    app, mended = App("a"), list[bool]()

    @app.subscriber(items, retry=Retry(2, delay=0.1))
    async def handle(item: Item) -> None:
        if not mended:
            raise ValueError(f"{item.n}")

    async with tell(app, tracer_provider=traces.provider) as story:
        await story.publish(items, Item(n=1), headers={"traceparent": SENDER})
        await story.advance(1)
        mended.append(True)
        assert await story.redrive() == 1

    (sent,), (first, second, again) = traces.named("send items"), traces.named("process items")
    assert [link.context.span_id for link in second.links] == [id_of(first)]
    assert [parent_of(one) for one in (first, second, again)] == [id_of(sent)] * 3
    assert again.links == ()
    assert attributes(second)["busline.attempt"] == 2


async def test_what_is_told_to_come_later_has_not_failed_and_what_is_refused_has(
    tell: Tell, traces: Traces
) -> None:
    app = App("a")

    @app.subscriber(items)
    async def handle(item: Item, delivery: Delivery) -> None:
        raise Reject("no") if item.n else RetryLater(5)

    async with tell(app, tracer_provider=traces.provider) as story:
        await story.publish(items, Item(n=1))
        await app.publish(items, Item(n=0))
        await story.settled()

    refused, later, *_ = traces.named("process items")
    assert (
        later.status.status_code,
        attributes(later).get("error.type"),
        later.events[0].name,
    ) == (StatusCode.UNSET, None, "exception")
    assert (refused.status.status_code, attributes(refused)["error.type"]) == (
        StatusCode.ERROR,
        "Reject",
    )


async def test_many_messages_are_one_send(tell: Tell, traces: Traces) -> None:
    app = App("a", publishes=[items])

    async with tell(app, tracer_provider=traces.provider):
        await app.publish_many(items, [Item(n=n) for n in range(3)])

    (sent,) = traces.named("send items")
    assert attributes(sent)["messaging.batch.message_count"] == 3
