"""The flights example: its figures are those of the file, in memory and through killed
processes."""

import csv
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from examples.flights import model
from examples.flights.app import app, explain, flights, record
from examples.flights.expected import expected
from examples.flights.model import Flight
from examples.flights.producer import BROKEN_EVERY, airports, rows, wire
from examples.flights.statistics import Statistics
from pydantic import ValidationError

from busline.testing import in_memory

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "flights" / "flights.csv"
ROW = next(rows(FILE)) | {"carrier": "UA"}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLIGHTS_STATISTICS", str(tmp_path / "statistics.db"))
    return tmp_path / "statistics.db"


def carriers(table: Path) -> Mapping[str, Mapping[str, int]]:
    statistics = Statistics(table)
    found = statistics.carriers()
    statistics.close()
    return found


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=environment
    )


def test_the_rows_have_all_that_the_quarter_has() -> None:
    want, sent = expected(FILE), list(rows(FILE))

    assert (want.rows, len(want.late), len(want.carriers), want.broken) == (405, 13, 15, 5)
    assert sum(one["cancelled"] for one in want.carriers.values()) == 25
    assert sum(one["diverted"] for one in want.carriers.values()) == 10
    assert sum(row["tailnum"] is None for row in sent) == 9


async def test_figures_and_jobs_are_those_of_the_file(table: Path) -> None:
    mended = [Flight.model_validate(model.mended(row)) for row in rows(FILE)]
    async with in_memory(app) as bus:
        for flight in mended:
            await bus.publish(flights, flight)
        await bus.advance(60)  # the retries

        want = expected(FILE)
        jobs = [explain.job(f"late/{flight}") for flight in want.late]
        results = {
            one.flight: [one.minutes, one.before_departure]
            for one in [await job.result() for job in jobs]
        }
        counts = bus.counts(explain)

    assert carriers(table) == want.carriers
    assert results == want.late
    assert (counts["handled"], counts["retried"]) == (len(want.late), want.retried)


async def test_broken_rows_die_with_a_readable_reason_and_their_own_bytes(table: Path) -> None:
    broken = [row for number, row in enumerate(rows(FILE)) if number % BROKEN_EVERY == 0]
    async with in_memory(app, airports, errors="keep") as bus:
        for row in broken:
            await bus.publish(wire, row)
        letters = bus.dead(record)

    assert [wire.codec.decode(letter.body or b"") for letter in letters] == broken
    assert all(
        "carrier: String should match" in one.reason or "arr_delay: Input" in one.reason
        for one in letters
    )


async def test_a_flight_delivered_twice_is_counted_once(table: Path) -> None:
    flight = Flight.model_validate(ROW | {"arr_delay": 200, "dep_delay": 210})
    async with in_memory(app) as bus:
        await bus.publish(flights, flight)
        await bus.publish(flights, flight)
        await bus.advance(60)

        assert bus.counts(record)["handled"] == 2
        assert bus.counts(explain)["handled"] == 1
        result = await explain.job(f"late/{flight.id}").result()

    assert carriers(table)["UA"]["flights"] == 1
    assert result.text == "UA 1545 left 210 min late and made up 10 min in the air."


def test_a_cancelled_flight_with_a_delay_is_refused() -> None:
    with pytest.raises(ValidationError, match="never left"):
        Flight.model_validate(ROW | {"dep_time": None})


@pytest.mark.slow
def test_the_demo_kills_its_worker_and_loses_nothing() -> None:
    done = python("-m", "examples.flights.demo")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "SIGKILL" in done.stdout and "Nothing was lost, nothing was counted twice." in done.stdout
    )
    assert done.stderr == ""


@pytest.mark.slow
def test_every_second_run_after_four_kills_is_explained(tmp_path: Path) -> None:
    more = tmp_path / "flights.csv"
    multiply(FILE, more, 25)

    done = python("-m", "examples.flights.chaos", str(more), "--kills", "4", "--seed", "3")

    assert done.returncode == 0, done.stdout + done.stderr


def multiply(path: Path, into: Path, times: int) -> None:
    """The same flights again and again, under other numbers."""
    with path.open(newline="") as lines, into.open("w", newline="") as out:
        reader = csv.DictReader(lines)
        writer = csv.DictWriter(out, reader.fieldnames or ())
        writer.writeheader()
        for row in reader:
            writer.writerows(
                row | {"flight": str(int(row["flight"]) + 10_000 * copy)} for copy in range(times)
            )


def test_expected_knows_nothing_of_busline() -> None:
    done = python("-c", "import sys, examples.flights.expected; sys.exit('busline' in sys.modules)")

    assert done.returncode == 0
