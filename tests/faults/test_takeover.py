"""A second process stands by, and goes on where the first was killed; a frozen one is refused when
it comes back."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.started import started

APP = """
import os
from pydantic import BaseModel
from busline import App, Topic

class Item(BaseModel):
    n: int

items = Topic("items", Item, partitions=2)
app = App("take", streams=os.environ["FILE"])

@app.subscriber(items)
async def handle(item: Item) -> None:
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(f"{os.getpid()} {item.n}\\n")
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "take.py").write_text(textwrap.dedent(APP))
        self.env = {
            **os.environ,
            "FILE": f"sqlite:///{folder}/bus.db",
            "LEDGER": str(folder / "ledger"),
            "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
        }
        (folder / "ledger").touch()

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[asyncio.subprocess.Process]:
        async with started("take:app", folder=self.folder, env=self.env) as worker:
            yield worker.process

    async def publish(self, *numbers: int) -> None:
        for n in numbers:
            done = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "busline",
                "publish",
                "take:app",
                "items",
                f'{{"n":{n}}}',
                env=self.env,
                cwd=self.folder,
                stdout=asyncio.subprocess.DEVNULL,
            )
            assert await done.wait() == 0

    async def handled(self, n: int) -> int:
        """The pid that handled it, as soon as one has."""
        async with asyncio.timeout(20):
            while True:
                for line in (self.folder / "ledger").read_text().splitlines():
                    if line.endswith(f" {n}"):
                        return int(line.split()[0])
                await asyncio.sleep(0.01)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


async def test_a_standby_takes_the_group_over_when_its_owner_is_killed(project: Project) -> None:
    async with project.worker() as owner:
        await project.publish(1)
        assert await project.handled(1) == owner.pid
        async with project.worker() as standby:
            await project.publish(2)
            assert await project.handled(2) == owner.pid

            owner.send_signal(signal.SIGKILL)
            begun = time.monotonic()
            await project.publish(3)

            assert await project.handled(3) == standby.pid
            print(f"taken over and handled {time.monotonic() - begun:.2f} s after the kill")


async def test_sigterm_hands_the_group_over_and_leaves_with_0(project: Project) -> None:
    async with project.worker() as owner, project.worker() as standby:
        await project.publish(1)
        await project.handled(1)
        owner.send_signal(signal.SIGTERM)
        assert await owner.wait() == 0
        await project.publish(2)
        assert await project.handled(2) == standby.pid
