"""The engines of an App: one for its streams, one for its jobs."""

from dataclasses import dataclass

from busline.core.address import Address
from busline.core.errors import Invalid, wrong
from busline.core.ports import Transport

REMEDIES = {
    "topic": "Declare a subscriber, or name the topic in App(publishes=[...]).",
    "queue": "Declare a task of this App.",
}


@dataclass(slots=True)
class Engines:
    """The transports an App uses: the same object twice where streams and jobs share one engine."""

    streams: Transport | None = None
    jobs: Transport | None = None

    def of(self, address: Address) -> Transport:
        transport = self.streams if address.kind == "topic" else self.jobs
        if transport is None:
            raise Invalid(
                wrong(
                    address.name, f"an engine for a {address.kind}", "none", REMEDIES[address.kind]
                )
            )
        return transport

    def all(self) -> list[Transport]:
        return list({id(one): one for one in (self.streams, self.jobs) if one is not None}.values())
