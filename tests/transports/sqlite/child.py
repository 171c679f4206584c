"""A process that takes jobs and reads records, and sends one job for each with its outcome.
`child.py FILE LEASE LOOK`.

Says `up` when it is ready, `took N` for each batch, `lost N` when so many were recalled.
"""

import asyncio
import sys
from collections.abc import Sequence

from busline.core.address import Address
from busline.core.clock import Clock, SystemClock
from busline.core.errors import Unavailable
from busline.core.ids import new_id
from busline.core.message import Delivery, Message
from busline.core.outcome import Acked, Send
from busline.core.ports import Receiver, Subscription
from busline.transports.sqlite import SqliteTransport, file, neighbours

JOBS, DONE, RECORDS = (
    Address("queue", "jobs"),
    Address("queue", "done"),
    Address("topic", "records", 4),
)


class Host:
    clock: Clock = SystemClock()

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        say(f"lost {len(deliveries)}")

    def release(self, deliveries: Sequence[Delivery]) -> None: ...

    def waits(self, place: str, why: str | None) -> None: ...

    def missed(self, count: int) -> None: ...

    def unknown(self, task: str, count: int) -> None: ...


def say(what: str) -> None:
    print(what, flush=True)


async def work(receiver: Receiver) -> None:
    while True:
        try:
            got = await receiver.receive(20)
            say(f"took {len(got)}")
            await asyncio.sleep(0.01)
            await receiver.settle(
                [(one, Acked((Send(DONE, Message(new_id(), one.id.encode())),))) for one in got]
            )
        except Unavailable:
            await asyncio.sleep(0.01)


async def main(path: str, lease: float, look: float) -> None:
    file.BEAT, neighbours.LOOK = min(lease / 5, file.BEAT), look
    host = Host()
    async with (
        SqliteTransport(path, lease=lease) as transport,
        transport.subscribe(Subscription((JOBS,)), host) as jobs,
        transport.subscribe(Subscription((RECORDS,), "g"), host) as records,
    ):
        say("up")
        await asyncio.gather(work(jobs), work(records))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
