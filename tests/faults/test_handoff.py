"""Every job that a record sends runs once, however often the record runs: the short form."""

from pathlib import Path

import pytest

from tests.faults.handoff import hand_off


@pytest.mark.slow
@pytest.mark.server
def test_jobs_of_records_run_once_though_their_workers_are_killed(tmp_path: Path) -> None:

    kills, _ = hand_off(tmp_path, count=2500, every=(2.5, 3.5))

    assert kills >= 2
