"""What is being handled, in every log record."""

import logging

from busline.core.message import Delivery
from busline.runtime.sending import HANDLING

FIELDS = ("message_id", "handler", "attempt", "position", "trace_id", "span_id")


class Handling(logging.Filter):
    """Gives each record the attributes of FIELDS: of the delivery that is being handled, None
    outside a handler. What a record has under such a name already, from `extra`, stays.

    Add it to your logging handlers, or name it in a dictConfig: `{"()": "busline.logs.Handling"}`.
    `busline run` has the same in its own. The trace is the attempt's, or without tracing that of
    the message's `traceparent`."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in (handled() or dict.fromkeys(FIELDS)).items():
            record.__dict__.setdefault(name, value)
        return True


def handled() -> dict[str, object] | None:
    """The FIELDS of the delivery that is being handled; None outside a handler."""
    delivery = HANDLING.get()
    if delivery is None:
        return None
    trace, span = _trace(delivery)
    return dict(
        zip(
            FIELDS,
            (delivery.id, delivery.handler, delivery.attempt, delivery.position, trace, span),
            strict=True,
        )
    )


def _trace(delivery: Delivery) -> tuple[str | None, str | None]:
    if delivery.span is not None:
        return f"{delivery.span.trace_id:032x}", f"{delivery.span.span_id:016x}"
    parts = delivery.headers.get("traceparent", "").split("-")
    return (parts[1] if len(parts) == 4 else None), None
