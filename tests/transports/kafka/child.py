"""A worker on a topic. `child.py URL TOPIC GROUP LEDGER SECONDS SESSION DRAIN FIRST`: each function
takes so many seconds, those of the partitions' first records FIRST.

Writes `start POSITION` and `done POSITION` into the ledger; says `up` when it is ready and `ended
N` when it has drained after a SIGTERM, with so many refused."""

import asyncio
import os
import signal
import sys

from busline.core.address import Address
from busline.core.clock import SystemClock
from busline.core.counts import Counts
from busline.core.handler import Handler
from busline.core.message import Delivery
from busline.core.outcome import ACKED, Outcome, Rejected
from busline.core.ports import Subscription
from busline.runtime.elsewhere import Elsewhere
from busline.runtime.engines import Engines
from busline.runtime.work import Work
from busline.runtime.worker import Worker
from busline.transports.kafka import KafkaTransport

PARTITIONS = 6


def say(what: str) -> None:
    print(what, flush=True)


async def main(url: str, topic: str, group: str, path: str, *times: float) -> None:
    seconds, session, drain, first = times
    ledger = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    pid, counts = os.getpid(), dict[str, Counts]()

    async def run(delivery: Delivery) -> Outcome:
        os.write(ledger, f"start {delivery.position} {pid}\n".encode())
        await asyncio.sleep(first if str(delivery.position).endswith("@0") else seconds)
        os.write(ledger, f"done {delivery.position} {pid}\n".encode())
        return ACKED

    def fail(_: Delivery, error: BaseException) -> Outcome:
        return Rejected("it failed", error)

    subscription = Subscription((Address("topic", topic, PARTITIONS),), group, "key", ahead=200)
    async with KafkaTransport(url, session=session, drain=drain) as transport:
        work = Work("run", transport, subscription, {"": Handler("run", run, fail)}, 50, 50)
        worker = Worker(work, SystemClock(), Elsewhere(Engines(transport), transport), counts)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop.set)
        running = asyncio.ensure_future(worker.run(10, 2))
        await worker.ready.wait()
        say("up")
        await running
    say(f"ended {sum(one.refused for one in counts.values())}")


if __name__ == "__main__":
    url, topic, group, path, *times = sys.argv[1:]
    asyncio.run(main(url, topic, group, path, *map(float, times)))
