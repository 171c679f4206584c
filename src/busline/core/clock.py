"""Time, as everything in busline sees it: tests put another clock in its place and move it."""

import asyncio
import random as chance
import time as machine
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

Seconds: TypeAlias = float | timedelta


class Timer(Protocol):
    """A call that is going to happen, unless it is cancelled."""

    def cancel(self) -> object: ...


class Clock(Protocol):
    """`time` is seconds since 1970, for what is stored; `ticks` never goes back, for what is waited
    for."""

    def time(self) -> float: ...
    def ticks(self) -> float: ...
    def after(self, delay: float, call: Callable[[], object]) -> Timer: ...
    async def sleep(self, delay: float) -> None: ...
    def random(self) -> float: ...


class SystemClock:
    """The machine's own clock."""

    time = staticmethod(machine.time)
    ticks = staticmethod(machine.monotonic)
    sleep = staticmethod(asyncio.sleep)
    random = staticmethod(chance.random)

    def after(self, delay: float, call: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(max(delay, 0), call)


def seconds(value: Seconds) -> float:
    """Seconds as a float, whichever way they were written."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def moment(time: float) -> datetime:
    """A point in time as people see it: aware, in UTC."""
    return datetime.fromtimestamp(time, UTC)


def stamp(time: float) -> str:
    """A point in time as every line and every command shows it: to the second, with its zone."""
    return f"{moment(time):%Y-%m-%d %H:%M:%S} UTC"
