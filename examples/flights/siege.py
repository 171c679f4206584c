"""Flights on servers: two workers read the records, two run the jobs, and one of each is killed
again and again.

`python -m examples.flights.siege FILE --streams kafka://HOST --jobs redis://HOST [--seconds 180]
[--every 8 12]`"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from subprocess import Popen
from typing import Any

from examples.flights.chaos import Ledger
from examples.flights.child import busline, check_ended, settle_in, worker
from examples.flights.expected import expected
from examples.flights.producer import PAUSE, produce, rows, stream
from examples.flights.statistics import Statistics
from examples.flights.verify import Check, checks, living, report

SIDES = {"record": "streams", "explain": "jobs"}
LOOK = 0.05
FIRST = 200  # records that wait before the workers begin


@dataclass(slots=True)
class Siege:
    """`killed`: the processes that were, and how many flights were in the table then."""

    every: tuple[float, float]
    dice: random.Random
    running: dict[str, list[Popen[bytes]]] = field(default_factory=dict[str, list["Popen[bytes]"]])
    killed: dict[str, list[tuple[int, int]]] = field(
        default_factory=lambda: {name: [] for name in SIDES}
    )

    def begin(self) -> None:
        self.running = {name: [worker("--only", name) for _ in range(2)] for name in SIDES}

    async def kill_often(self, statistics: Statistics) -> None:
        """One of each side at a time, and a new one in its place at once: none before something was
        recorded since the last, however long a new one takes to begin."""
        while True:
            before = statistics.count()
            await asyncio.sleep(self.dice.uniform(*self.every))
            while statistics.count() == before:
                await asyncio.sleep(LOOK)
            for name, workers in self.running.items():
                victim = workers.pop(self.dice.randrange(len(workers)))
                victim.kill()
                victim.wait()
                check_ended(victim.returncode)
                self.killed[name].append((victim.pid, statistics.count()))
                print(
                    f"  killed {name}'s {victim.pid} with {statistics.count()} flights in the"
                    " table",
                    flush=True,
                )
                workers.append(worker("--only", name))

    def end(self) -> None:
        """Whoever is left ends in good order."""
        for one in [one for workers in self.running.values() for one in workers]:
            one.terminate()
            check_ended(one.wait())

    def pids(self) -> list[int]:
        return [pid for kills in self.killed.values() for pid, _ in kills]

    def checks(self) -> Iterator[Check]:
        for name, kills in self.killed.items():
            counts = [count for _, count in kills]
            still = sum(one == other for one, other in pairwise(counts))
            yield Check(f"kills of {name} without a record since the last", 0, still)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--streams", required=True)
    parser.add_argument("--jobs", required=True)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--every", type=float, nargs=2, default=(8, 12), metavar=("LEAST", "MOST"))
    parser.add_argument("--rows", type=int, help="only the first so many")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="busline-siege-") as folder:
        settle_in(Path(folder))
        os.environ["BUSLINE_STREAMS"], os.environ["BUSLINE_JOBS"] = options.streams, options.jobs
        siege = Siege(tuple(options.every), random.Random(options.seed))
        sys.exit(
            not besiege(siege, Path(folder), options.file.absolute(), options.rows, options.seconds)
        )


def besiege(siege: Siege, folder: Path, path: Path, limit: int | None, seconds: float) -> bool:
    """Runs it; returns whether every figure is as expected and every second run explained."""
    want = expected(path, limit)
    os.environ["FLIGHTS_LEDGER"] = str(folder / "ledger")
    os.environ["FLIGHTS_SECONDS"] = "0.01"
    sent = islice(rows(path), limit)
    asyncio.run(produce(islice(sent, FIRST)))
    siege.begin()
    try:
        asyncio.run(
            hold(
                siege,
                stream(
                    sent, handful=max(1, round(want.rows / seconds * PAUSE)), told=lambda _: None
                ),
            )
        )
    finally:
        siege.end()
    ledger = Ledger.read(folder / "ledger", siege.pids())
    del os.environ["FLIGHTS_LEDGER"]
    os.environ["FLIGHTS_MODEL"] = "fixed"
    busline("dead redrive", "--handler", "record")
    check_ended(worker("--until-idle").wait())
    print({name: len(kills) for name, kills in siege.killed.items()}, "kills")
    own = [*siege.checks(), *explained(ledger, want.rows)]
    good = report([*own, *checks(want, counted=False)])
    print(ledger)
    return good


async def hold(siege: Siege, publishing: object) -> None:
    """Publishes, with kills, and waits until nothing is behind."""
    statistics = Statistics(Path(os.environ["FLIGHTS_STATISTICS"]))
    killing = asyncio.ensure_future(siege.kill_often(statistics))
    try:
        await publishing  # type: ignore[misc]  # a coroutine of the producer
    finally:
        killing.cancel()
        await asyncio.wait([killing])
    if not killing.cancelled():
        killing.result()
    statistics.close()
    await quiet()


async def quiet(limit: float = 90.0) -> None:
    """Until no group is behind and no job lives."""
    end = time.monotonic() + limit
    while not _finished(seen := await asyncio.to_thread(busline, "inspect")):
        if time.monotonic() > end:
            sys.exit(f"not finished {limit:g} s after the last kill: {seen}")
        await asyncio.sleep(0.5)


def _finished(seen: Any) -> bool:
    return not any(one["behind"] for one in seen["groups"]) and not any(
        living(one) for one in seen["queues"].values()
    )


def explained(ledger: Ledger, published: int) -> Iterator[Check]:
    records = [runs for message, runs in ledger.runs.items() if message[0] == "record"]
    yield Check("records that ran", published, len(records))
    yield Check("records that overtook in their partition", 0, ledger.overtook)
    yield Check(
        "runs begun and never ended", 0, sum(not runs[-1].ended for runs in ledger.runs.values())
    )
    yield Check("second runs that no kill explains", 0, ledger.unexplained)


if __name__ == "__main__":
    main()
