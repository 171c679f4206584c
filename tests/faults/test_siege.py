"""Flights on real servers, with one of two workers on each side killed every few seconds: the short
form."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.test_flights import FILE, ROOT, multiply


@pytest.mark.slow
@pytest.mark.server
def test_flights_survive_the_death_of_workers_on_kafka_and_redis(tmp_path: Path) -> None:
    more = tmp_path / "flights.csv"
    multiply(FILE, more, 10)
    words = [
        sys.executable,
        "-m",
        "tests.faults.siege",
        str(more),
        "--seconds",
        "14",
        "--every",
        "3",
        "4",
        "--seed",
        "5",
    ]

    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=280)

    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
