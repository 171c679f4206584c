"""What is told of messages on their way out, and of a wait for a result."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from busline.core.address import Address
from busline.core.message import Message


class Outgoing(Protocol):
    """Called around what an App sends. May add headers to the messages."""

    def create(self, address: Address, message: Message) -> None:
        """It was put aside inside a handler and leaves with the outcome."""
        ...

    def send(self, address: Address, messages: Sequence[Message]) -> AbstractContextManager[object]:
        """Entered before they are published, left when they are confirmed or not."""
        ...

    def wait(self, address: Address, id: str) -> AbstractContextManager[object]:
        """Around the wait for a job's result."""
        ...
