"""What did come out, against what must: the table, every job's result, and what the command line
says.

`python -m examples.flights.verify FILE`, in the environment of a finished run.
"""

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.flights.app import app, explain
from examples.flights.child import busline
from examples.flights.expected import Expected, expected
from examples.flights.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Check:
    """One figure. `detail` says where it differs, when the figure is a count of equal things."""

    name: str
    expected: int
    actual: int
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.expected == self.actual and not self.detail


def checks(want: Expected, *, counted: bool = True) -> Iterator[Check]:
    """Every figure of a run whose broken rows were redriven. `counted`: whether the engine of the
    streams counts."""
    statistics = Statistics(Path(os.environ["FLIGHTS_STATISTICS"]))
    carriers = statistics.carriers()
    statistics.close()
    for name in ("flights", "cancelled", "diverted", "minutes_late"):
        label = {
            "flights": "flights in the table",
            "minutes_late": "minutes late, all together",
        }.get(name, name)
        yield Check(label, _sum(want.carriers.values(), name), _sum(carriers.values(), name))
    yield _equal("carriers with these figures", want.carriers, carriers)
    yield _equal("late flights explained", want.late, asyncio.run(explanations(want.late)))
    seen = busline("inspect")
    if counted:
        yield Check("records handled, each once", want.rows, seen["handlers"]["record"]["handled"])
        yield Check(
            "broken rows that died, and came back", want.broken, seen["handlers"]["record"]["dead"]
        )
    yield Check(
        "jobs handled, each once",
        len(want.late),
        seen["handlers"].get("explain", {}).get("handled", 0),
    )
    yield Check(
        "jobs that failed once, and again did not",
        want.retried,
        seen["handlers"]["explain"]["retried"],
    )
    yield Check("records behind", 0, _sum(seen["groups"], "behind"))
    yield Check("jobs left", 0, sum(living(queue) for queue in seen["queues"].values()))
    yield Check("dead letters left", 0, len(busline("dead list", "--limit", "1000000")))


def _sum(rows: Iterable[dict[str, int]], name: str) -> int:
    return sum(row[name] for row in rows)


def _equal(
    name: str,
    want: dict[str, object] | dict[str, dict[str, int]] | dict[str, list[int]],
    got: object,
) -> Check:
    found: dict[object, object] = dict(got) if isinstance(got, dict) else {}
    wrong = [key for key in want.keys() | found.keys() if want.get(str(key)) != found.get(key)]
    detail = ", ".join(f"{key}: {want.get(str(key))} is {found.get(key)}" for key in wrong[:5])
    return Check(name, len(want), len(found), detail)


async def explanations(late: Iterable[str]) -> dict[str, list[int]]:
    """What each late flight's job returned: the minutes late on arrival and at departure."""
    async with app:
        found = [await explain.job(f"late/{flight}").result(timeout=10) for flight in late]
    return {one.flight: [one.minutes, one.before_departure] for one in found}


def living(queue: Mapping[str, int]) -> int:
    """How many jobs of a queue are not final."""
    return sum(queue[state] for state in ("waiting", "delayed", "retrying", "running"))


def report(done: Iterable[Check]) -> bool:
    """Prints the figures; returns whether all are as expected."""
    good = True
    print(f"   {'':40} {'expected':>9} {'actual':>9}")
    for one in done:
        print(
            f"   {one.name:40} {one.expected:>9} {one.actual:>9} "
            f" {'ok' if one.good else 'WRONG ' + one.detail}"
        )
        good &= one.good
    return good


if __name__ == "__main__":
    sys.exit(not report(checks(expected(Path(sys.argv[1])))))
