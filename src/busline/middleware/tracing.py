"""Spans of OpenTelemetry: one for each attempt, one for each send, one for each wait for a result.

Names and attributes are those of the messaging conventions, 1.44. An attempt's parent is the span
that sent the message; an attempt that follows another is linked to it."""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from busline.core.address import Address
from busline.core.causes import has_failed, in_words, leaf
from busline.core.chain import CallNext, Middleware
from busline.core.errors import BuslineError, Reject
from busline.core.message import TIMEOUT, Delivery, Headers, Message
from busline.core.policy import DAY
from busline.core.ports import Transport
from busline.core.position import number_of, offset_of

log = logging.getLogger("busline")
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
Attributes: TypeAlias = dict[str, str | int | bool]
# a message without a trace begins one, whatever was current where its worker began
NOTHING = Context()


class Tracing:
    """`of`: the transport of an address. `jobs`: the one in which a job's attempts leave word for
    the next."""

    def __init__(
        self,
        provider: trace.TracerProvider,
        of: Callable[[Address], Transport],
        jobs: Transport | None,
    ) -> None:
        self._tracer = provider.get_tracer("busline", schema_url=SCHEMA)
        self._of, self._jobs = of, jobs
        self._places: dict[tuple[str, str], Attributes] = {}

    def _place(self, address: Address) -> Attributes:
        """What is the same for all that goes to an address, or comes from it."""
        known = self._places.get(address[:2])
        if known is None:
            engine = self._of(address)
            known = self._places[address[:2]] = {
                "messaging.system": engine.system,
                "messaging.destination.name": address.name,
            }
            if engine.server is not None:
                known["server.address"], known["server.port"] = engine.server
        return known

    def _facts(self, address: Address, message: Message, position: str | None = None) -> Attributes:
        """What the conventions want of one message."""
        found = self._place(address) | {"messaging.message.id": message.id}
        if message.task:
            found["busline.task"] = message.task
        if position is not None:
            found["messaging.destination.partition.id"] = number_of(position)
        return (
            found | _of_kafka(message, position) if found["messaging.system"] == "kafka" else found
        )

    # --- attempts ----------------------------------------------------------------------------

    def around(self, handler: str, group: str | None) -> Middleware:
        """The layer around one handler."""
        own: Attributes = {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "busline.handler": handler,
        }
        if group is not None:
            own["messaging.consumer.group.name"] = group

        async def tracing(delivery: Delivery, call_next: CallNext) -> object:
            headers = delivery.message.headers
            parent = propagate.extract(headers, NOTHING, HEADERS) if headers else NOTHING
            elsewhere = delivery.span is None and delivery.attempt > 1 and not delivery.in_lane
            span = self._attempt(
                delivery, own, parent, await self._before(delivery) if elsewhere else delivery.span
            )
            # the delivery's task has a context of its own, which ends with it
            attach(trace.set_span_in_context(span, parent))
            delivery.span = span.get_span_context()
            try:
                return await call_next(delivery)
            except BaseException as error:  # whatever ends the attempt is told, and goes on
                _failed(span, delivery, error)
                await self._remember(delivery, error)
                raise
            finally:
                span.end()

        return tracing

    def _attempt(
        self, delivery: Delivery, own: Attributes, parent: Context, before: SpanContext | None
    ) -> Span:
        address = Address("queue" if delivery.position is None else "topic", delivery.address)
        attributes = (
            own
            | self._facts(address, delivery.message, delivery.position)
            | {"busline.attempt": delivery.attempt}
        )
        links = () if before is None else (Link(before),)
        return self._tracer.start_span(
            f"process {address.name}", parent, SpanKind.CONSUMER, attributes, links
        )

    async def _before(self, delivery: Delivery) -> SpanContext | None:
        """The span of a job's attempt before this one, in whichever process that was."""
        try:
            kept = None if self._jobs is None else (await self._jobs.store.get([_key(delivery)]))[0]
        except BuslineError as error:
            log.debug("%r is not linked to the attempt before: %s", delivery, error)
            return None
        return (
            None
            if kept is None
            else trace.get_current_span(
                propagate.extract((("traceparent", kept),), NOTHING, HEADERS)
            ).get_span_context()
        )

    async def _remember(self, delivery: Delivery, error: BaseException) -> None:
        if self._jobs is None or delivery.in_lane or isinstance(error, Reject) or delivery.cut_off:
            return
        try:
            await self._jobs.store.put(_key(delivery), _written(delivery.span), DAY)
        except BuslineError as trouble:
            log.debug("the attempt after %r is not linked to it: %s", delivery, trouble)

    # --- sends -------------------------------------------------------------------------------

    def create(self, address: Address, message: Message) -> None:
        with self._sending("create", address, (message,)):
            pass

    def send(self, address: Address, messages: Sequence[Message]) -> AbstractContextManager[object]:
        return self._sending("send", address, messages)

    @contextmanager
    def _sending(
        self, operation: str, address: Address, messages: Sequence[Message]
    ) -> Generator[None]:
        many: Attributes = {"messaging.batch.message_count": len(messages)}
        attributes = (
            self._facts(address, messages[0]) if len(messages) == 1 else self._place(address) | many
        )
        with self._span(operation, SpanKind.PRODUCER, address, attributes):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            written = tuple((name, value.encode()) for name, value in carrier.items())
            for message in messages:
                message.headers = (
                    *(kept for kept in message.headers if kept[0] not in carrier),
                    *written,
                )
            yield

    def wait(self, address: Address, id: str) -> AbstractContextManager[object]:
        return self._span(
            "receive", SpanKind.CLIENT, address, self._place(address) | {"messaging.message.id": id}
        )

    @contextmanager
    def _span(
        self, operation: str, kind: SpanKind, address: Address, attributes: Attributes
    ) -> Generator[None]:
        named: Attributes = {
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
        }
        with self._tracer.start_as_current_span(
            f"{operation} {address.name}", kind=kind, attributes=named | attributes
        ) as span:
            try:
                yield
            except BaseException as error:  # a cancelled send or wait is told as well, and goes on
                span.set_attribute("error.type", type(error).__name__)
                raise


class _Getter(Getter[Headers]):
    """Reads a message's headers for the propagators."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        return [(value or b"").decode("latin-1") for name, value in carrier if name == key] or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name for name, _ in carrier]


HEADERS = _Getter()


def _of_kafka(message: Message, position: str | None) -> Attributes:
    found: Attributes = {} if position is None else {"messaging.kafka.offset": offset_of(position)}
    if message.key is not None and message.key.isascii():
        found["messaging.kafka.message.key"] = message.key.decode()
    if message.body is None:
        found["messaging.kafka.message.tombstone"] = True
    return found


def _failed(span: Span, delivery: Delivery, error: BaseException) -> None:
    """Told to come later, or cut off by the worker for its own reasons: no failure."""
    whole = leaf(error)
    span.record_exception(whole)
    if delivery.cut_off:
        span.set_attribute("busline.cut", str(delivery.cut))
    elif has_failed(error):
        span.set_attribute(
            "error.type", "TimeoutError" if delivery.cut == TIMEOUT else type(whole).__name__
        )
        span.set_status(StatusCode.ERROR, in_words(whole))


def _key(delivery: Delivery) -> str:
    return f"span/{delivery.id}"


def _written(span: SpanContext) -> bytes:
    """As a traceparent."""
    flags = span.trace_flags & TraceFlags.SAMPLED
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{flags:02x}".encode()
