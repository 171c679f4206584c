"""A worker that may have 256 MiB of data reads large records and large jobs to their end, on every
engine."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from busline import App, Topic
from tests.servers import Servers
from tests.stories.conftest import pair

MEMORY = 256 * 1024 * 1024
COUNT = 100  # of 900 KiB each, for the records and for the jobs
TEXT = "x" * (900 * 1024)
NAME = "tests.faults.test_small_memory:app"
app = App("large")
records = Topic("large", str, partitions=4)


def note(what: str) -> None:
    ledger = os.open(os.environ["LEDGER"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(ledger, f"{what}\n".encode())
    os.close(ledger)


@app.subscriber(records, order="none")
async def record(text: str) -> None:
    await asyncio.sleep(0.1)  # all that is handed out is held meanwhile
    note("record")


@app.task
async def job(text: str) -> None:
    await asyncio.sleep(0.1)
    note("job")


def values() -> Iterator[str]:
    return (TEXT for _ in range(COUNT))


@pytest.mark.parametrize("engines", [pair("sqlite", "sqlite"), pair("kafka", "redis")])
async def test_large_messages_fit_into_a_small_worker(
    engines: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, jobs = servers.pair(engines, tmp_path / "bus.db")
    ledger = tmp_path / "ledger"
    url = f"sqlite:///{tmp_path}/bus.db"
    named = {
        "BUSLINE_STREAMS": (
            url if str(streams).startswith("sqlite") else f"{streams}?create_topics=1"
        ),
        "BUSLINE_JOBS": url if str(jobs).startswith("sqlite") else str(jobs),
        "LEDGER": str(ledger),
    }
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    async with app:
        await app.publish_many(records, values())
        await app.enqueue_many(job.call(text) for text in values())

    worker = subprocess.run(
        [sys.executable, "-m", "busline", "run", NAME, "--until-idle"],
        cwd=Path(__file__).parents[2], preexec_fn=_limit, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip

    assert worker.returncode == 0, worker.stderr[-2000:]
    assert sorted(ledger.read_text().split()) == ["job"] * COUNT + ["record"] * COUNT


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
