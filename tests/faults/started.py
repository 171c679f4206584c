"""`busline run` in another process, ended with the test."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Started:
    """`said`: its log so far, and once it has ended the whole of it."""

    process: asyncio.subprocess.Process
    said: str = ""
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def listen(self) -> None:
        """Reads its log until it ends; a full pipe would stop it."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.said += line
            if "runs" in line:
                self._heard.set()
        self._heard.set()

    async def runs(self) -> None:
        """Returns when it says so."""
        await self._heard.wait()
        assert "runs" in self.said, f"the worker ended before it ran: {self.said}"


@asynccontextmanager
async def started(*words: str, folder: Path, env: Mapping[str, str]) -> AsyncGenerator[Started]:
    """Entered, it runs; left, it is killed if it still does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "busline",
        "run",
        *words,
        env=env,
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    worker = Started(process)
    listening = asyncio.ensure_future(worker.listen())
    try:
        await worker.runs()
        yield worker
    finally:
        if process.returncode is None:
            process.kill()
        await listening
        await process.wait()
