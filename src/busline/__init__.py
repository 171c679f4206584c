"""busline: streams and jobs in one asyncio App, with typed handlers."""

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
from busline.router import Router
from busline.task import Call, Job, Jobs, JobStatus, Queue, Task
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
    "Key",
    "KeyValue",
    "Middleware",
    "NoResult",
    "Queue",
    "Reject",
    "Retry",
    "RetryLater",
    "Router",
    "Seconds",
    "Source",
    "Task",
    "Topic",
    "Unavailable",
]
