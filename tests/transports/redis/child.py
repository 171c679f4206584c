"""A worker process: takes jobs, says so, and settles them when it is told to. `child.py URL
LEASE`."""

import asyncio
import sys
from collections.abc import Sequence

from busline.core.clock import Clock, SystemClock
from busline.core.message import Delivery, Message
from busline.core.outcome import Acked, Keep, Send
from busline.core.ports import Subscription
from busline.testing.contract import MAIL, POST
from busline.transports.redis import RedisTransport


class Host:
    clock: Clock = SystemClock()

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        say("recalled", len(deliveries))

    def release(self, deliveries: Sequence[Delivery]) -> None: ...

    def missed(self, count: int) -> None: ...

    def waits(self, place: str, why: str | None) -> None: ...

    def unknown(self, task: str, count: int) -> None: ...


def say(*words: object) -> None:
    print(*words, flush=True)


async def told() -> None:
    """Waits for a line without holding up the loop."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def main(url: str, lease: float) -> None:
    async with (
        RedisTransport(url, lease=lease) as transport,
        transport.subscribe(Subscription((MAIL,)), Host()) as receiver,
    ):
        got = list(await receiver.receive(10))
        say("took", *[(one.body or b"").decode() for one in got])
        await told()
        for one in got:
            one.handler = "send"
        ends = [
            (
                one,
                Acked(
                    (
                        Send(POST, Message(f"sent-{one.id}", b"sent")),
                        Keep(f"fact-{one.id}", b"1", 60),
                    )
                ),
            )
            for one in got
        ]
        say("refused", len((await receiver.settle(ends)).refused))
        await told()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
