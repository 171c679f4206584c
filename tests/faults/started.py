"""`busline run` in another process, ended with the test."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Started:
    """`said`: its whole log, once it has ended."""

    process: asyncio.subprocess.Process
    said: str = ""


@asynccontextmanager
async def started(*words: str, folder: Path, env: Mapping[str, str]) -> AsyncGenerator[Started]:
    """Entered, it runs; left, it is killed if it still does."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "busline", "run", *words, env=env, cwd=folder, stderr=asyncio.subprocess.PIPE)
    worker = Started(process)
    try:
        assert process.stderr is not None
        while b"runs" not in (line := await process.stderr.readline()):
            assert line, "the worker ended before it ran"
        yield worker
    finally:
        if process.returncode is None:
            process.kill()
        worker.said = (await process.communicate())[1].decode()
