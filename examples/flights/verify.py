"""What did come out: the user's table, every job's result, and the command line's own figures."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from examples.flights.expected import expected
from examples.flights.statistics import Statistics

APP = "examples.flights.app:app"


def busline(*words: str) -> Any:
    """What a `busline` command prints with --json, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "busline", *words, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def differences(path: Path) -> list[str]:
    """Every figure that is not as expected; empty when all is well."""
    want = expected(path)
    table = Statistics(Path(os.environ["FLIGHTS_STATISTICS"]))
    found = [_compare("statistics by carrier", want["carriers"], dict(table.carriers()))]
    table.close()
    seen = busline("inspect", APP)
    found.append(_compare("records behind", 0, sum(group["behind"] for group in seen["groups"])))
    found.append(_compare("jobs left", 0, sum(sum(queue.values()) for queue in seen["queues"].values())))
    found.append(_compare("dead letters", 0, len(busline("dead", "list", APP, "--limit", "100000"))))
    found.append(_compare("results of late flights", want["late"], asyncio.run(results(list(want["late"])))))
    return [one for one in found if one]


def _compare(name: str, want: object, got: object) -> str:
    return "" if want == got else f"{name}: expected {str(want)[:300]}, got {str(got)[:300]}"


async def results(late: list[str]) -> dict[str, int]:
    """The minutes that each late flight's job returned."""
    from examples.flights.app import apologise, app

    async with app:
        found = [await apologise.job(f"late/{flight}").result(timeout=10) for flight in late]
    return {one.flight: one.minutes for one in found}


if __name__ == "__main__":
    wrong = differences(Path(sys.argv[1]))
    print("\n".join(wrong) or "as expected")
    sys.exit(bool(wrong))
