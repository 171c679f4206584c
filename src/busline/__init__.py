"""busline: streams and jobs in one asyncio App, with typed handlers."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from busline.app import App
    from busline.core.chain import CallNext, Middleware
    from busline.core.clock import Seconds
    from busline.core.depends import INJECTED, Depends, Header, Key
    from busline.core.errors import (
        BuslineError,
        ConfigError,
        Invalid,
        JobFailed,
        NoResult,
        Reject,
        RetryLater,
        Unavailable,
    )
    from busline.core.message import DeadLetter, Delivery, KeyValue
    from busline.core.policy import Retry
    from busline.engine import Kafka, Memory, Redis, Sqlite
    from busline.job import Job, Jobs, JobStatus
    from busline.router import Router
    from busline.task import Call, Queue, Task
    from busline.topic import Source, Topic

__version__ = "0.1.0"

__all__ = [
    "INJECTED",
    "App",
    "BuslineError",
    "Call",
    "CallNext",
    "ConfigError",
    "DeadLetter",
    "Delivery",
    "Depends",
    "Header",
    "Invalid",
    "Job",
    "JobFailed",
    "JobStatus",
    "Jobs",
    "Kafka",
    "Key",
    "KeyValue",
    "Memory",
    "Middleware",
    "NoResult",
    "Queue",
    "Redis",
    "Reject",
    "Retry",
    "RetryLater",
    "Router",
    "Seconds",
    "Source",
    "Sqlite",
    "Task",
    "Topic",
    "Unavailable",
]

# where each name lives: imported when it is first used, so that `busline --version` need not wait
# for them
HOMES = {
    "busline.app": ("App",),
    "busline.core.chain": ("CallNext", "Middleware"),
    "busline.core.clock": ("Seconds",),
    "busline.core.depends": ("INJECTED", "Depends", "Header", "Key"),
    "busline.core.errors": (
        "BuslineError",
        "ConfigError",
        "Invalid",
        "JobFailed",
        "NoResult",
        "Reject",
        "RetryLater",
        "Unavailable",
    ),
    "busline.core.message": ("DeadLetter", "Delivery", "KeyValue"),
    "busline.core.policy": ("Retry",),
    "busline.engine": ("Kafka", "Memory", "Redis", "Sqlite"),
    "busline.router": ("Router",),
    "busline.job": ("Job", "Jobs", "JobStatus"),
    "busline.task": ("Call", "Queue", "Task"),
    "busline.topic": ("Source", "Topic"),
}
HOME = {name: home for home, names in HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in HOME:
        return getattr(importlib.import_module(HOME[name]), name)
    raise AttributeError(f"module 'busline' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
