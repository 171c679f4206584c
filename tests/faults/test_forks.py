"""Children that a process forks: what they inherit locks nothing, listens to nothing, and is not
used by accident."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from busline.core.address import Address
from busline.core.message import Message
from busline.transports.sqlite import SqliteTransport
from tests.cli.conftest import Project, project, read_until

__all__ = ["project"]  # the fixture

JOBS = Address("queue", "jobs")
ORPHANING = """
import asyncio, os, signal, subprocess, sys, time
from busline.core.address import Address
from busline.core.message import Message
from busline.core.ports import Subscription
from busline.transports.sqlite import SqliteTransport
from tests.transports.sqlite.child import Host

async def main():
    asked = Subscription((Address("queue", "jobs"),))
    async with SqliteTransport(sys.argv[1]) as transport, transport.subscribe(asked,
    Host()) as jobs:
        await jobs.receive(1)
        child = os.fork()
        if child == 0:
            os.close(1)
            time.sleep(60)
            os._exit(0)
        other = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
        print(child, other.pid, flush=True)
        await transport.file.write(lambda db: os.kill(os.getpid(), signal.SIGKILL))

asyncio.run(main())
"""
USING = """
import asyncio, os
from busline import App, Invalid

app = App("a")

@app.task
async def note() -> None: ...

async def again():
    async with app:
        print((await (await note.enqueue()).status()).state, flush=True)

async def main():
    async with app:
        if os.fork() == 0:
            try:
                await note.enqueue()
            except Invalid as error:
                print(error, flush=True)
            asyncio.run(again())
            os._exit(0)
        os.wait()
        await note.enqueue()

asyncio.run(main())
"""
FORKING = """
import asyncio, multiprocessing, time
from busline import App

app = App("forking")
fork = multiprocessing.get_context("fork")

@app.task(keep_result=60)
def start_and_stop() -> list[int | None]:
    children = [fork.Process(target=time.sleep, args=(60,)) for _ in range(10)]
    for one in children:
        one.start()
        one.terminate()
    for one in children:
        one.join(20)
    return [one.exitcode for one in children]

@app.task(keep_result=60)
def leave_one() -> int:
    child = fork.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    return child.pid or 0
"""


def env(folder: Path) -> dict[str, str]:
    roots = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "src")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "BUSLINE_HOME": str(folder)}


async def test_what_outlives_a_killed_process_keeps_nothing_locked(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    async with SqliteTransport(path) as transport:
        await transport.publish(JOBS, [Message("j", b"{}")])
        victim = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ORPHANING,
            str(path),
            env=env(tmp_path),
            stdout=asyncio.subprocess.PIPE,
        )
        assert victim.stdout is not None
        orphans = [int(pid) for pid in (await victim.stdout.readline()).split()]
        assert await victim.wait() == -signal.SIGKILL
        try:
            assert len(orphans) == 2
            await transport.publish(JOBS, [Message("k", b"{}")])
            while (await transport.inspector.depth())["jobs"].waiting < 2:
                await asyncio.sleep(0.01)
            assert [path.name for path in transport.process.folder.glob("*.lock")] == [
                f"{transport.process.n}.lock"
            ]
        finally:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)


def test_in_a_forked_child_an_app_is_closed_and_can_be_opened(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USING],
        env=env(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("'a': expected an open App, got a closed one") and second == "waiting"


def test_children_of_a_worker_end_when_they_are_told_and_end_with_it(project: Project) -> None:
    project.write("forking.py", FORKING)
    worker = project.start("run", "forking:app", "--http", "127.0.0.1:0")
    read_until(worker, "runs:")

    assert (
        project.run("enqueue", "forking:app", "start_and_stop", "--wait", "30").stdout
        == "[" + ",".join(["-15"] * 10) + "]\n"
    )
    left = int(project.run("enqueue", "forking:app", "leave_one", "--wait", "30").stdout)
    worker.terminate()

    assert worker.wait(30) == 0
    assert not Path(f"/proc/{left}").exists()
