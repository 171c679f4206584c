"""A record's arrival."""

from typing import Any

from busline.core.message import Delivery, Message
from busline.transports.kafka import wire


class Arrival(Delivery):
    """Made for every record, so what few functions ask for is made when it is asked for.
    `receipt`: its tracker and its offset."""

    __slots__ = ("_message", "body", "record")

    address: str
    body: bytes | None

    def __init__(self, record: Any, topic: str, lane: object, receipt: Any) -> None:
        self.record, self.address, self.lane, self.receipt = record, topic, lane, receipt
        self.body = record.value  # pyright: ignore  # a slot, not a property: it is asked for often
        self.attempt, self.handler, self._size = 1, "", len(record.value or b"")
        self.sends = self.cut = self.span = self._view = None
        self._message: Message | None = None

    @property
    def message(self) -> Message:  # type: ignore[override]  # nobody sets it
        if self._message is None:
            self._message = wire.message(self.record, self.record.key, self.position)
        return self._message

    @property
    def position(self) -> str:  # type: ignore[override]  # nobody sets it
        tracker, offset = self.receipt
        return f"{tracker.name}@{offset}"

    @property
    def partition(self) -> str:
        name: str = self.receipt[0].name
        return name

    @property
    def key(self) -> bytes | None:
        key: bytes | None = self.record.key
        return key

    @property
    def in_lane(self) -> bool:
        return True

    def fresh(self) -> "Arrival":
        """As if it came for the first time."""
        return Arrival(self.record, self.address, self.lane, self.receipt)

    def again(self) -> "Arrival":
        """The same arrival, for its next attempt."""
        fresh = self.fresh()
        fresh.attempt, fresh.handler, fresh.span = self.attempt, self.handler, self.span
        return fresh
