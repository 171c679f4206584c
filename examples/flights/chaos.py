"""The long way: every record, a worker killed by SIGKILL again and again, and each second run
explained.

`python -m examples.flights.chaos FILE [--kills 20] [--rows N] [--seed 1]`
"""

import argparse
import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from examples.flights.child import busline, check_ended, settle_in, worker
from examples.flights.expected import expected
from examples.flights.producer import produce, rows
from examples.flights.statistics import Statistics
from examples.flights.verify import Check, checks, report

AT_ONCE = {"record": 16, "explain": 100}  # one for each partition; the default of a queue
AT_HAND = {"record": 16, "explain": 100}  # what counts as running until it is settled
LOOK = 0.005
Message: TypeAlias = tuple[str, str, str]  # handler, id, attempt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, help="only the first so many")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="busline-chaos-") as folder:
        settle_in(Path(folder))
        sys.exit(
            not chaos(
                Path(folder), options.file.absolute(), options.kills, options.rows, options.seed
            )
        )


def chaos(folder: Path, path: Path, kills: int, limit: int | None, seed: int) -> bool:
    """Runs it; returns whether every figure is as expected and every second run explained."""
    want = expected(path, limit)
    published = asyncio.run(produce(islice(rows(path), limit)))
    print(f"{published} records published; {kills} kills, seed {seed}")
    os.environ["FLIGHTS_LEDGER"] = str(folder / "ledger")
    killed = list(kill_often(published, kills, random.Random(seed)))
    check_ended(worker("--until-idle").wait())
    ledger = Ledger.read(folder / "ledger", killed)
    del os.environ["FLIGHTS_LEDGER"]
    os.environ["FLIGHTS_MODEL"] = "fixed"
    busline("dead redrive", "--all")
    check_ended(worker("--until-idle").wait())
    own = [Check("kills", kills, len(killed)), *ledger.checks(published), *integrity(folder)]
    good = report([*own, *checks(want)])
    print(ledger)
    return good


# --- killing ---------------------------------------------------------------------------------


def kill_often(published: int, kills: int, dice: random.Random) -> Iterator[int]:
    """Yields the ids of the processes it killed.

    Three in four die once a random number of flights is in the table, the fourth at a random moment
    of its first second, when it opens the file or takes over from the last."""
    statistics = Statistics(Path(os.environ["FLIGHTS_STATISTICS"]))
    for number, share in enumerate(sorted(dice.uniform(0.01, 0.9) for _ in range(kills))):
        running = worker("--until-idle")
        if number % 4 == 3:
            time.sleep(dice.uniform(0.05, 1.0))
        else:
            wait_until(
                statistics,
                running,
                max(int(published * share), statistics.count() + dice.randrange(1, 100)),
            )
            time.sleep(dice.uniform(0, 0.02))
        if running.poll() is None:
            running.kill()
            running.wait()
            yield running.pid
            print(f"  killed {running.pid} with {statistics.count()} flights in the table")
        check_ended(running.returncode)
    statistics.close()


def wait_until(statistics: Statistics, running: subprocess.Popen[bytes], count: int) -> None:
    while running.poll() is None and statistics.count() < count:
        time.sleep(LOOK)


# --- explaining ------------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """One run of a function. `ended` is empty for one that was cut off."""

    process: int
    ended: str = ""


@dataclass(slots=True)
class Ledger:
    """Every run that began. `running`, `finished`: for each killed process, how many of its runs
    were done again, cut off within the function, or after it and before the engine had taken the
    outcome."""

    killed: list[int]
    runs: dict[Message, list[Run]] = field(
        default_factory=lambda: defaultdict[Message, list[Run]](list)
    )
    running: Counter[tuple[int, str]] = field(default_factory=Counter[tuple[int, str]])
    finished: Counter[tuple[int, str]] = field(default_factory=Counter[tuple[int, str]])
    unexplained: int = 0
    overtook: int = 0
    _last: dict[tuple[int, str], int] = field(default_factory=dict[tuple[int, str], int])

    @classmethod
    def read(cls, path: Path, killed: list[int]) -> "Ledger":
        ledger = cls(killed)
        with path.open() as lines:
            for line in lines:
                what, process, handler, id, attempt, position = line.split()
                ledger._add(what, int(process), (handler, id, attempt))
                if what == "start" and handler == "record":
                    ledger._follow(int(process), position)
        for message, runs in ledger.runs.items():
            for run in runs[:-1]:
                ledger._explain(message, run)
        return ledger

    def _add(self, what: str, process: int, message: Message) -> None:
        if what == "start":
            self.runs[message].append(Run(process))
        else:
            self.runs[message][-1].ended = what

    def _follow(self, process: int, position: str) -> None:
        partition, _, offset = position.rpartition("@")
        self.overtook += int(offset) <= self._last.get((process, partition), -1)
        self._last[process, partition] = int(offset)

    def _explain(self, message: Message, run: Run) -> None:
        if run.process not in self.killed:
            self.unexplained += 1
        else:
            (self.finished if run.ended else self.running)[run.process, message[0]] += 1

    def checks(self, published: int) -> Iterator[Check]:
        records = [runs for message, runs in self.runs.items() if message[0] == "record"]
        yield Check("records that ran", published, len(records))
        yield Check("records that overtook in their partition", 0, self.overtook)
        yield Check(
            "runs begun and never ended", 0, sum(not runs[-1].ended for runs in self.runs.values())
        )
        yield Check("second runs that no kill explains", 0, self.unexplained)
        yield _within("kills that cut off more than runs at once", self.running, AT_ONCE)
        yield _within(
            "kills that undid more than is at hand", self.running + self.finished, AT_HAND
        )

    def __str__(self) -> str:
        again = self.running + self.finished
        return (
            f"{sum(map(len, self.runs.values()))} runs of {len(self.runs)} attempts."
            f" {again.total()} ran again: {self.running.total()} were cut off as they ran (at most"
            f" {_most(self.running)} by one kill), {self.finished.total()} had ended and were not"
            f" settled (at most {_most(self.finished)})."
        )


def _most(counter: Counter[tuple[int, str]]) -> int:
    return max(counter.values(), default=0)


def _within(name: str, again: Counter[tuple[int, str]], limits: dict[str, int]) -> Check:
    over = [
        f"{process} {handler} {count}"
        for (process, handler), count in again.items()
        if count > limits[handler]
    ]
    return Check(name, 0, len(over), ", ".join(over))


def integrity(folder: Path) -> Iterator[Check]:
    for name in ("bus.db", "statistics.db"):
        db = sqlite3.connect(folder / name)
        found = [row[0] for row in db.execute("PRAGMA integrity_check")]
        db.close()
        faults = [] if found == ["ok"] else found
        yield Check(f"faults in {name}", 0, len(faults), "; ".join(faults[:3]))


if __name__ == "__main__":
    main()
