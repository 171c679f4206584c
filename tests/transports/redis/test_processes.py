"""Worker processes that are killed, or stand still for longer than their lease."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from busline.core.counts import Whose
from busline.core.outcome import ACKED
from busline.testing.contract import bodies, message, receive
from tests.servers.redis import Server
from tests.transports.redis.conftest import Engines

CHILD = Path(__file__).with_name("child.py")


@asynccontextmanager
async def child(server: Server, lease: float) -> AsyncGenerator[Process]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, CHILD, server.url, str(lease), stdin=PIPE, stdout=PIPE, env=env
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def said(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


def tell(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")


async def test_what_a_killed_process_had_in_hand_runs_elsewhere(
    engines: Engines, redis: Server
) -> None:
    desk = await engines.desk(lease=1.0)
    await desk.transport.publish(desk.mail, [message(b"a", id="1"), message(b"b", id="2")])
    async with child(redis, 1.0) as worker:
        assert await said(worker) == "took a b"
        receiver = await desk.take()
        worker.kill()
        begun = time.monotonic()

        got = await receive(receiver, 2)

    assert bodies(got) == [b"a", b"b"] and [one.attempt for one in got] == [1, 1]
    assert (await receiver.settle([(one, ACKED) for one in got])).refused == []
    print(f"running elsewhere {time.monotonic() - begun:.2f} s after the kill, with a lease of 1 s")
    assert (await desk.transport.inspector.depth())["mail"][:4] == (0, 0, 0, 0)


async def test_a_process_frozen_past_its_lease_is_refused_when_it_comes_back(
    engines: Engines, redis: Server
) -> None:
    desk = await engines.desk(lease=1.0)
    await desk.transport.publish(desk.mail, [message(b"a", id="1")])
    async with child(redis, 1.0) as zombie:
        assert await said(zombie) == "took a"
        zombie.send_signal(signal.SIGSTOP)
        receiver = await desk.take()
        theirs = await receive(receiver, 1)
        tell(zombie)
        zombie.send_signal(signal.SIGCONT)
        words = await said(zombie)

        assert words == "refused 1" or (words == "recalled 1" and await said(zombie) == "refused 1")
        assert (await desk.transport.inspector.counts())[Whose("mail", "send")].refused == 1
        assert "post" not in await desk.transport.inspector.depth()
        assert await desk.transport.store.get(["fact-1"]) == [None]
        assert (await receiver.settle([(theirs[0], ACKED)])).refused == []


async def test_a_process_that_leaves_gives_back_at_once(engines: Engines, redis: Server) -> None:
    desk = await engines.desk()
    await desk.transport.publish(desk.mail, [message(b"a")])
    async with child(redis, 20.0) as worker:
        assert await said(worker) == "took a"
        worker.send_signal(signal.SIGINT)
        begun = time.monotonic()

        got = await receive(await desk.take(), 1)

        assert bodies(got) == [b"a"] and got[0].attempt == 1
        assert time.monotonic() - begun < 5
