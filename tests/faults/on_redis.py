"""Attacks on a Redis: lost answers, workers killed and frozen, the server started again."""

import asyncio
import time
from pathlib import Path

from busline import Redis
from tests.faults.judge import Fault
from tests.faults.on_sqlite import OfJobs
from tests.faults.started import Started
from tests.servers.redis import Server, Wire

LEASE = 2.0
SCRIPT = b"EVALSHA"


class Queues(OfJobs):
    """`wires`: what each worker that has one speaks through."""

    def __init__(self, folder: Path, server: Server) -> None:
        super().__init__(folder, Redis(server.url), f"{server.url}?lease={LEASE:g}")
        self.server, self.wires = server, dict[int, Wire]()


class Wired(Queues):
    """Each worker speaks through a wire of its own."""

    async def join(self, **environment: str) -> Started:
        wire = await Wire(self.server).__aenter__()
        worker = await super().join(BUSLINE_JOBS=f"{wire.url}?lease={LEASE:g}")
        self.wires[worker.pid] = wire
        return worker

    async def leave(self) -> None:
        await super().leave()
        for wire in self.wires.values():
            await wire.cut()

    async def lose_an_answer(self) -> None:
        """The next one that one of the workers gets. What it has in hand may go to another."""
        victim = self.any_worker()
        wire, at = self.wires[victim.pid], time.monotonic()
        before = wire.lost
        wire.loses_answers_after = SCRIPT
        async with asyncio.timeout(60):
            while wire.lost == before:
                await asyncio.sleep(0.01)
        self.faults.append(Fault(at, time.monotonic() + LEASE, victim.pid))


async def answers_lost(field: Wired) -> None:
    await field.lose_an_answer()
    await asyncio.sleep(0.25)


async def killed(field: Queues) -> None:
    await asyncio.sleep(1)
    await field.kill()
    await asyncio.sleep(LEASE)


async def frozen(field: Queues) -> None:
    """Past the lease."""
    await asyncio.sleep(1)
    await field.freeze(2 * LEASE)


async def server_restarted(field: Queues) -> None:
    """Killed, and started again from its file."""
    await asyncio.sleep(1.5)
    at = time.monotonic()
    await asyncio.to_thread(field.server.kill)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(field.server.start)
    field.note(at)
