"""From `publish` here to a handler's start in another process, and what that process costs while it
has nothing to do."""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel

from busline import App, Topic


class Ping(BaseModel):
    sent: int


pings = Topic("pings", Ping, partitions=1)
app = App("latency", publishes=[pings])


@app.subscriber(pings)
async def pong(ping: Ping) -> None:
    with Path(os.environ["PONGS"]).open("a") as out:
        out.write(f"{time.monotonic_ns() - ping.sent}\n")


async def measure(count: int, rest: float) -> dict[str, float]:
    """Milliseconds at the median and at 99 %, and per cent of one core while idle for `rest`
    seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pongs = Path(folder) / "pongs"
        pongs.touch()
        os.environ["PONGS"], os.environ["BUSLINE_STREAMS"] = (
            str(pongs),
            f"sqlite:///{folder}/bus.db",
        )
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "busline",
            "run",
            "benchmarks.latency:app",
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await _ping(count, pongs)
            took = sorted(int(line) / 1e6 for line in pongs.read_text().splitlines()[-count:])
            before = _cpu(worker.pid)
            await asyncio.sleep(rest)
            idle = 100 * (_cpu(worker.pid) - before) / rest
        finally:
            worker.terminate()
            await worker.wait()
    return {"latency p50": took[count // 2], "latency p99": took[count * 99 // 100], "idle": idle}


async def _ping(count: int, pongs: Path) -> None:
    async with app:
        for n in range(count + 20):  # the first ones find the worker starting
            await app.publish(pings, Ping(sent=time.monotonic_ns()))
            while n < 20 and len(pongs.read_text().splitlines()) <= n:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.005)
        while len(pongs.read_text().splitlines()) < count + 20:
            await asyncio.sleep(0.01)


def _cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
