"""A function that blocks the loop is named, with its seconds."""

import asyncio
import logging
import time

import pytest

from busline import App
from busline.runtime.watchdog import Watchdog


def blocks(seconds: float) -> None:
    time.sleep(seconds)  # what a user's function should not do


async def test_a_blocked_loop_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "busline"), Watchdog(look=0.05):
        blocks(0.4)
        async with asyncio.timeout(10):
            while len(caplog.records) < 2:
                await asyncio.sleep(0.01)
    said = [record.message for record in caplog.records]

    assert len(said) == 2
    assert (
        "blocks the event loop" in said[0]
        and "test_watchdog.py" in said[0]
        and "in blocks" in said[0]
    )
    assert "blocked the event loop for 0." in said[1]


async def test_a_running_app_names_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    app = App("a", jobs="memory://")

    @app.task
    async def slow() -> int:
        blocks(2.5)
        return 1

    async with app.running():
        assert await (await slow.enqueue()).result(timeout=10) == 1

    assert any(
        "'slow'" in record.message and "blocks the event loop" in record.message
        for record in caplog.records
    )
