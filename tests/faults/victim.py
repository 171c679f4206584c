"""A process that publishes, receives and settles, and kills itself at its n-th SQL statement.
`victim.py FILE N`."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, RELEASED, Acked, Keep, Outcome, Rejected, Retried, Send
from busline.core.ports import Subscription
from busline.transports.sqlite import SqliteTransport

JOBS, EFFECTS, RECORDS = (
    Address("queue", "jobs"),
    Address("queue", "effects"),
    Address("topic", "records", 1),
)


class Host:
    clock: Clock = SystemClock()

    def recall(self, deliveries: Sequence[Delivery]) -> None: ...

    def release(self, deliveries: Sequence[Delivery]) -> None: ...

    def missed(self, count: int) -> None: ...

    def waits(self, place: str, why: str | None) -> None: ...

    def unknown(self, task: str, count: int) -> None: ...


def effect(id: str) -> Acked:
    return Acked(
        (Send(EFFECTS, Message(f"effect-{id}", b"{}", at=1.0)), Keep(f"fact-{id}", b"1", 3600.0))
    )


async def main(path: str, fatal: int) -> None:
    async with SqliteTransport(path) as transport:
        arm(transport, fatal)
        await transport.publish(
            JOBS,
            [
                Message(f"j{n}", b"{}", at=1.0, remember=60.0 if n == 1 else 0.0)
                for n in range(1, 6)
            ],
        )
        say("jobs")
        await transport.publish(RECORDS, [Message(f"r{n}", b"{}", at=1.0) for n in range(1, 5)])
        say("records")
        async with transport.subscribe(Subscription((JOBS,)), Host()) as receiver:
            got = await receiver.receive(10)
            ends: list[Outcome] = [
                effect("j1"),
                Rejected("bad", ValueError("x")),
                Retried(60, ValueError("x")),
                RELEASED,
                ACKED,
            ]
            await receiver.settle(list(zip(got, ends, strict=True)))
            say("jobs settled")
        async with transport.subscribe(Subscription((RECORDS,), "g"), Host()) as reader:
            one, two, three, four = await reader.receive(10)
            await reader.settle([(one, effect("r1")), (three, effect("r3"))])
            await reader.settle([(two, Rejected("bad"))])
            await reader.settle([(four, effect("r4"))])
            say("records settled")


def arm(transport: SqliteTransport, fatal: int) -> None:
    left = [fatal]

    def count(statement: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    transport.file._database.connection.set_trace_callback(count)


def say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
