"""A worker whose jobs and records are large lives in little memory: what is in hand is bounded in bytes."""

import subprocess
import sys

from busline.core.address import Address
from busline.core.message import Message
from busline.transports.sqlite import SqliteTransport
from tests.cli.conftest import Project, project

__all__ = ["project"]  # the fixture

COUNT, SIZE, MEMORY = 160, 900 * 1024, 256 << 20
APP = """
    from busline import App, Topic

    app = App("large")


    @app.subscriber(Topic("large", str), order="none")
    async def read(text: str) -> None: ...


    @app.task
    async def take(text: str) -> None: ...
"""
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY})); from busline.cli import main; main()"


async def test_large_jobs_and_records_are_handled_in_little_memory(project: Project) -> None:
    project.write("large.py", APP)
    (project.folder / ".busline").mkdir()
    text = b"x" * SIZE
    async with SqliteTransport(project.folder / ".busline" / "bus.db") as transport:
        for n in range(COUNT):
            await transport.publish(Address("queue", "large"), [Message(f"{n}", b'{"text":"%b"}' % text, task="take")])
            await transport.publish(Address("topic", "large"), [Message(f"{n}", b'"%b"' % text)])

    words = [sys.executable, "-c", LIMITED, "run", "large:app", "--until-idle"]
    done = subprocess.run(words, cwd=project.folder, env=project.environment(), capture_output=True, text=True, timeout=100, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    assert f"read: handled {COUNT}" in done.stderr and f"take: handled {COUNT}" in done.stderr
