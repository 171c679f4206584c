"""What every transport must do, for pytest. Subclass the part that says what yours can carry and
give it two fixtures.

`Topics`: records. `Queues`: jobs. `OneEngine`: both, changed in one step. `engine` opens transports
on one engine: `await engine()` for the first, again for another process's. `clock` is theirs.
`mark`, where the engine outlives a test, ends the names of that test's topics and groups."""

from busline.testing.contract.desk import (
    MAIL,
    ORDERS,
    OTHER,
    POST,
    Contract,
    Desk,
    Open,
    Recorder,
    ack,
    bodies,
    message,
    nothing,
    receive,
)
from busline.testing.contract.one_engine import OneEngine
from busline.testing.contract.queues import Queues
from busline.testing.contract.topics import Topics

__all__ = [
    "MAIL", "ORDERS", "OTHER", "POST", "Contract", "Desk", "OneEngine", "Open", "Queues",
    "Recorder", "Topics",
    "ack", "bodies", "message", "nothing", "receive",
]  # fmt: skip
