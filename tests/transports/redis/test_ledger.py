"""Random trouble, and a ledger: every job ends once, and what it sends is sent once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from busline.core.errors import Unavailable
from busline.core.message import Delivery, Message
from busline.core.outcome import RELEASED, Acked, Outcome, Retried, Send
from busline.core.ports import Receiver
from busline.testing.contract import POST
from tests.servers.redis import Server, Wire
from tests.transports.redis.conftest import Engines, RealDesk

STEPS = 150


@pytest.fixture
async def wire(redis: Server) -> AsyncGenerator[Wire]:
    async with Wire(redis) as wire:
        yield wire


class Worker:
    """Takes and settles as told; an outcome, once chosen, is asked for until it is answered."""

    def __init__(self, desk: RealDesk, receiver: Receiver) -> None:
        self.desk, self.receiver = desk, receiver
        self.chosen: dict[Delivery, Outcome | None] = {}
        self.refused = 0

    async def take(self, limit: int) -> int:
        waiting = asyncio.ensure_future(self.receiver.receive(limit))
        await asyncio.wait((waiting,), timeout=0.03)
        waiting.cancel()
        found = (await asyncio.gather(waiting, return_exceptions=True))[0]
        got = () if isinstance(found, BaseException) else found
        self.chosen.update(dict.fromkeys(got))
        return len(got)

    async def settle(self, chance: random.Random, *, ends: bool = False) -> None:
        for delivery, outcome in list(self.chosen.items())[:3]:
            self.chosen[delivery] = outcome or self.outcome(
                delivery, 0.0 if ends else chance.random()
            )
        settled = [(one, outcome) for one, outcome in self.chosen.items() if outcome is not None]
        try:
            self.refused += len(await self.receiver.settle(settled))
        except Unavailable:
            return
        for one, _ in settled:
            del self.chosen[one]

    @staticmethod
    def outcome(delivery: Delivery, turn: float) -> Outcome:
        if turn < 0.6:
            return Acked((Send(POST, Message(f"sent-{delivery.id}", b"")),))
        return Retried(0.0, ValueError()) if turn < 0.8 else RELEASED


@pytest.mark.parametrize("seed", range(4))
async def test_every_job_ends_once_whatever_happens(
    engines: Engines, wire: Wire, seed: int
) -> None:
    chance, calm = random.Random(seed), await engines.desk()
    desks = [await engines.desk(wire.url) for _ in range(3)]
    workers = [Worker(desk, await desk.take()) for desk in desks]
    jobs: list[str] = []
    for _ in range(STEPS):
        await step(chance, calm, chance.choice(workers), wire, jobs)
    await drain(chance, calm, workers)

    dead = [one.id for one in await calm.transport.inspector.dead(limit=10_000)]
    sent = Counter([one async for one in all_sent(calm)])
    assert not [one for one, times in sent.items() if times > 1]
    assert sorted([*dead, *(one.removeprefix("sent-") for one in sent)]) == sorted(jobs)
    print(
        f"seed {seed}: {len(jobs)} jobs, {len(dead)} dead, {wire.lost} answers lost,"
        f" {sum(one.refused for one in workers)} refused"
    )


async def step(
    chance: random.Random, calm: RealDesk, worker: Worker, wire: Wire, jobs: list[str]
) -> None:
    turn = chance.random()
    if turn < 0.25:
        names = [f"{len(jobs) + n}" for n in range(chance.randint(1, 3))]
        jobs += names
        await worker.desk.transport.publish(calm.mail, [Message(name, b"") for name in names])
    elif turn < 0.5:
        await worker.take(chance.randint(1, 4))
    elif turn < 0.75:
        await worker.settle(chance)
    elif turn < 0.87:
        wire.loses_answers_after = b"EVALSHA"
    elif turn < 0.93:
        wire.drop()
    else:
        await end_lease(calm, worker)


async def end_lease(calm: RealDesk, worker: Worker) -> None:
    """Another process takes this worker for dead; it does not hear of it but by its own next
    word."""
    for receiver in worker.desk.redis.receivers:
        if receiver.worker:
            await calm.redis.session.link.ask("ZADD", "{busline}:live", 1, receiver.worker)
    await asyncio.to_thread(calm.redis.session.lease.reap)


async def drain(chance: random.Random, calm: RealDesk, workers: list[Worker]) -> None:
    async with asyncio.timeout(30):
        while True:
            for worker in workers:
                await worker.take(50)
                while worker.chosen:
                    await worker.settle(chance, ends=True)
                    await asyncio.sleep(0.001)
            if not any((await calm.transport.inspector.depth())["mail"]):
                return


async def all_sent(calm: RealDesk) -> AsyncGenerator[str]:
    count = (await calm.transport.inspector.depth())["post"].waiting
    receiver = await calm.take(POST)
    while count > 0:
        for one in await receiver.receive(1000):
            count -= 1
            yield one.id
