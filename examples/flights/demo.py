"""`./scripts/demo`: flights through a worker that is killed and started again; broken rows, the
fix, and the sums."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from examples.flights.child import busline, check_ended, settle_in, worker
from examples.flights.expected import Expected, expected
from examples.flights.live import Live
from examples.flights.producer import PAUSE, Row, produce, rows, stream
from examples.flights.statistics import Statistics
from examples.flights.verify import checks, report

SECONDS = 3  # that a third of the file is streamed


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "flights.csv"
    if not path.exists():
        sys.exit(f"'{path}': expected a CSV of flights, got no file. Name a .csv or .csv.gz.")
    with tempfile.TemporaryDirectory(prefix="busline-demo-") as folder:
        settle_in(Path(folder))
        sys.exit(not run(path.absolute()))


def run(path: Path) -> bool:
    """The whole demo; returns whether every figure is as expected."""
    begun, want = time.monotonic(), expected(path)
    live = Live(want.rows)
    say(f"busline demo: {want.rows} flights that left New York, a folder of its own, no server")
    sent = rows(path)
    kill_in_the_middle(live, sent, path.name)
    say("3. The worker starts again: busline run --until-idle")
    finish(live)
    show_dead(want)
    redrive(live)
    good = summary(want)
    print(f"   {time.monotonic() - begun:.1f} s.")
    return good


def kill_in_the_middle(live: Live, sent: Iterator[Row], name: str) -> None:
    third = live.total // 3
    handful = max(1, round(third / SECONDS * PAUSE))
    say(
        f"1. {name} is streamed to the topic 'flights', keyed by tail number; a worker takes it:"
        " busline run"
    )
    running = worker()
    try:
        asyncio.run(live.watch(stream(islice(sent, third), handful=handful, told=live.told)))
        asyncio.run(burst(live, list(islice(sent, third)), running))
    finally:
        running.kill()
    check_ended(running.wait())
    say(
        f"2. SIGKILL to the worker, process {running.pid}, in the middle of a burst. The airports"
        " go on publishing."
    )
    asyncio.run(live.watch(stream(sent, handful=handful, told=live.told)))
    print(f"   Nobody listened: {live.behind} records wait in the topic.")


async def burst(live: Live, sent: list[Row], running: subprocess.Popen[bytes]) -> None:
    """Publishes all at once, and returns as soon as the worker is in the middle of it."""
    statistics = Statistics(Path(os.environ["FLIGHTS_STATISTICS"]))
    before = statistics.count()
    live.told(await produce(sent))
    while statistics.count() == before and running.poll() is None:
        await asyncio.sleep(0.001)
    statistics.close()


def finish(live: Live) -> None:
    """Runs a worker until nothing is left to do."""
    running = worker("--until-idle")
    try:
        asyncio.run(live.watch(ended(running)))
    finally:
        running.kill()
    check_ended(running.returncode)


async def ended(running: subprocess.Popen[bytes]) -> None:
    await asyncio.to_thread(running.wait)


def show_dead(want: Expected) -> None:
    say(f"4. {want.broken} rows were broken, and are in the dead letters: busline dead list")
    letters: list[dict[str, str]] = busline("dead list", "--limit", "1000000")
    for letter in letters[:3]:
        print(f"   {letter['position']}  {letter['body']}")
        print(
            textwrap.fill(
                letter["reason"], 100, initial_indent="      ", subsequent_indent="      "
            )
        )
    if len(letters) > 3:
        print(f"   and {len(letters) - 3} more")


def redrive(live: Live) -> None:
    say(
        "5. The model is fixed (FixedFlight in model.py); the same bytes go to the same handler:"
        " busline dead redrive"
    )
    os.environ["FLIGHTS_MODEL"] = "fixed"
    print(f"   {json.dumps(busline('dead redrive', '--all'))}")
    finish(live)


def summary(want: Expected) -> bool:
    say(
        "Summary: computed straight from the file, and by way of a topic, a SIGKILL, a table and"
        " jobs"
    )
    for carrier, one in want.carriers.items():
        arrived = one["flights"] - one["cancelled"] - one["diverted"]
        late = f"{one['minutes_late'] / arrived:>6.1f} minutes late on average" if arrived else ""
        print(f"   {carrier}  {one['flights']:>6} flights  {one['cancelled']:>5} cancelled  {late}")
    print()
    good = report(checks(want))
    print(
        "\n   Nothing was lost, nothing was counted twice."
        if good
        else "\n   NOT as computed from the file."
    )
    return good


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
