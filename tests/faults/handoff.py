"""Jobs that records send, while the records' workers are killed: every job runs once.

`python -m tests.faults.handoff [--records 10000] [--every 3 4]` is the long form.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from busline import App, Topic
from tests.servers.kafka import Kafka
from tests.servers.redis import running

ROOT = Path(__file__).parents[2]
PATH = "tests.faults.handoff:app"


class Item(BaseModel):
    n: int


records = Topic("records", Item, key="n")
app = App("handoff")


@app.subscriber(records, order="key", concurrency=50)
async def record(item: Item) -> None:
    write(f"record {item.n}")
    await asyncio.sleep(random.uniform(0, 0.02))
    if item.n % 15 == 0:  # two that race: in whichever order they come, each is itself
        await asyncio.gather(after(item.n * 10 + 1), after(item.n * 10 + 2))
    elif item.n % 3 == 0:
        await note.enqueue(item.n * 10)


async def after(n: int) -> None:
    await asyncio.sleep(random.uniform(0, 0.005))
    await note.enqueue(n)


@app.task
async def note(n: int) -> None:
    write(f"job {n}")


def wanted(count: int) -> set[int]:
    racing = {n * 10 + which for n in range(0, count, 15) for which in (1, 2)}
    return racing | {n * 10 for n in range(0, count, 3) if n % 15}


def write(line: str) -> None:
    descriptor = os.open(
        os.environ["HANDOFF_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
    )
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


class Handoff:
    """Two workers for the records, of which one is killed every so often, and one for the jobs,
    which lives."""

    def __init__(self, folder: Path, count: int, every: tuple[float, float], seed: int) -> None:
        self.count, self.every, self.dice = count, every, random.Random(seed)
        self.ledger = folder / "ledger"
        os.environ["HANDOFF_LEDGER"] = str(self.ledger)
        self.ledger.touch()
        self.kills = 0

    @contextmanager
    def worker(self, only: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "busline", "run", PATH, "--only", only, "--log-level", "error"],
            cwd=ROOT,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    async def run(self) -> Counter[str]:
        """How often each record began and each job ran."""
        async with app:
            await app.publish_many(records, (Item(n=n) for n in range(self.count)))
        with self.worker("note"):
            while self.kills < 2 or not self.began_all():
                await self.kill_one()
            await self.finish()
        return Counter(self.ledger.read_text().splitlines())

    async def kill_one(self) -> None:
        with self.worker("record") as one, self.worker("record"):
            await asyncio.sleep(self.dice.uniform(*self.every))
            one.kill()
            self.kills += 1

    def began_all(self) -> bool:
        lines = set(self.ledger.read_text().splitlines())
        return all(f"record {n}" in lines for n in range(self.count))

    async def finish(self) -> None:
        """Without kills, until nothing is left."""
        process = subprocess.run(
            [sys.executable, "-m", "busline", "run", PATH, "--until-idle", "--log-level", "error"],
            cwd=ROOT,
            check=False,
            timeout=90,
        )
        assert process.returncode == 0


def hand_off(
    folder: Path, count: int, every: tuple[float, float], seed: int = 1
) -> tuple[int, int]:
    """Returns how often it killed and how many records began twice. Raises AssertionError for a job
    that did not run once."""
    with running(appendonly="yes") as redis:
        (folder / "kafka").mkdir()
        kafka = Kafka(folder / "kafka", partitions=8)
        kafka.start()
        try:
            os.environ["BUSLINE_STREAMS"], os.environ["BUSLINE_JOBS"] = (
                f"{kafka.url}?session=3&create_topics=1",
                redis.url,
            )
            handoff = Handoff(folder, count, every, seed)
            seen = asyncio.run(handoff.run())
        finally:
            kafka.stop()
            for name in ("BUSLINE_STREAMS", "BUSLINE_JOBS", "HANDOFF_LEDGER"):
                os.environ.pop(name, None)
    jobs = {line: times for line, times in seen.items() if line.startswith("job")}
    assert set(jobs) == {f"job {n}" for n in wanted(count)}, (
        "a job is missing, or one came from nowhere"
    )
    assert set(jobs.values()) == {1}, (
        f"jobs that ran twice: {[line for line, times in jobs.items() if times > 1][:5]}"
    )
    return handoff.kills, sum(
        times - 1 for line, times in seen.items() if line.startswith("record")
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--every", type=float, nargs=2, default=(3, 4))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        begun = time.monotonic()
        kills, twice = hand_off(Path(place), options.records, tuple(options.every), options.seed)
        print(
            f"{options.records} records, {len(wanted(options.records))} jobs, each once; {kills}"
            f" kills, {twice} records began again; {time.monotonic() - begun:.0f} s"
        )
