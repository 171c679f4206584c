"""Whoever is not looked at has no layer for it."""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from busline import App, CallNext, Delivery
from busline.app import Setting
from busline.core.clock import SystemClock
from busline.middleware.metrics import Metrics
from busline.runtime.engines import Engines
from busline.transports.memory import MemoryTransport


def callers(frame: FrameType | None) -> Iterator[str]:
    """Who called whom, up to the worker."""
    while frame is not None and frame.f_code.co_name != "_run":
        yield frame.f_code.co_name
        frame = frame.f_back


@pytest.mark.parametrize(
    ("watch", "layers"),
    [
        ({}, []),
        ({"metrics": Metrics()}, ["metrics"]),
        ({"tracer_provider": TracerProvider(shutdown_on_exit=False)}, ["tracing"]),
        (
            {"tracer_provider": TracerProvider(shutdown_on_exit=False), "metrics": Metrics()},
            ["tracing", "metrics"],
        ),
    ],
)
async def test_only_what_is_looked_at_is_in_the_chain(
    watch: dict[str, Any], layers: list[str]
) -> None:
    found, engine = list[str](), MemoryTransport()

    async def own(delivery: Delivery, call_next: CallNext) -> object:
        return await call_next(delivery)

    app = App("a", middleware=[own])

    @app.task
    async def look() -> int:
        found.extend(callers(sys._getframe()))
        return 0

    async with app.running_with(Setting(Engines(engine, engine), SystemClock(), **watch)):
        await (await look.enqueue()).result(5)

    assert found[::-1] == ["retries", *layers, "own", "validation", "look"]
