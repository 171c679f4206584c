"""OpenTelemetry, set up once in each process: with TRACES=FILE every span is a line of JSON in that
file.

In production it is an exporter for your collector that stands here, or `opentelemetry-instrument`
in front of the command."""

import os

from fastapi import FastAPI


def begin(service: str) -> None:
    """Before the App opens: it is traced if a provider is set by then."""
    if "TRACES" not in os.environ:
        return
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    file = open(os.environ["TRACES"], "a", buffering=1)  # noqa: SIM115  # open as long as the process lives
    exporter = ConsoleSpanExporter(
        out=file, formatter=lambda span: span.to_json(indent=None) + "\n"
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def watch(api: FastAPI) -> None:
    """A span for each request."""
    if "TRACES" in os.environ:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(api, exclude_spans=["receive", "send"])
