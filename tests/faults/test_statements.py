"""SIGKILL at every SQL statement of publish, receive and settle: real processes, and every message
in one place."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from busline.transports.sqlite import SqliteTransport
from tests.faults import victim


def crash(folder: Path, fatal: int) -> tuple[int, Path, int, set[str]]:
    """Lets a victim die at a statement; what it had said by then."""
    path = folder / f"{fatal}.db"
    done = subprocess.run(
        [sys.executable, victim.__file__, str(path), str(fatal)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return fatal, path, done.returncode, set(done.stdout.splitlines())


def crashes(folder: Path) -> Iterator[tuple[int, Path, int, set[str]]]:
    """Every statement in turn, two at a time, until a victim survives."""
    with ThreadPoolExecutor(2) as pool:
        for start in range(1, 1000, 8):
            for one in pool.map(lambda fatal: crash(folder, fatal), range(start, start + 8)):
                yield one
                if one[2] == 0:
                    return


class Found:
    """What is in the file."""

    def __init__(self, path: Path) -> None:
        db = sqlite3.connect(path)
        self.integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
        self.jobs = [row[0] for row in db.execute("SELECT id FROM job")]
        self.held = db.execute("SELECT COUNT(*) FROM job WHERE state = 3").fetchone()[0]
        self.dead = [row[0] for row in db.execute("SELECT id FROM dead")]
        self.facts = {row[0] for row in db.execute("SELECT key FROM fact")}
        self.records = dict(db.execute("SELECT id, seq FROM log").fetchall())
        self.low = next((row[0] for row in db.execute("SELECT low FROM lane")), 0)
        self.done = {row[0] for row in db.execute("SELECT seq FROM done")}
        self.owners = db.execute("SELECT COUNT(*) FROM grp WHERE owner IS NOT NULL").fetchone()[0]
        db.close()

    def finished(self, id: str) -> bool:
        """Whether a record needs no handling any more."""
        return self.records[id] < self.low or self.records[id] in self.done

    def effects(self, id: str) -> tuple[int, bool]:
        return self.jobs.count(f"effect-{id}"), f"fact-{id}" in self.facts


def check_jobs(found: Found, said: set[str]) -> None:
    published = any(f"j{n}" in found.jobs for n in range(1, 6)) or "jobs" in said
    if not published:
        return
    assert "j3" in found.jobs and "j4" in found.jobs
    assert (found.jobs.count("j2"), found.dead.count("j2")) in ((1, 0), (0, 1))
    settled = "j2" in found.dead
    assert ("j1" in found.jobs) != settled and ("j5" in found.jobs) != settled
    assert found.effects("j1") == ((1, True) if settled else (0, False))
    assert settled or "jobs settled" not in said


def check_records(found: Found, said: set[str]) -> None:
    assert len(found.records) in (0, 4) and (found.records or "records" not in said)
    for id in ("r1", "r3", "r4") if found.records else ():
        assert found.effects(id) == ((1, True) if found.finished(id) else (0, False))
    if found.records:
        letters = [one for one in found.dead if one == "r2"]
        assert bool(letters) == found.finished("r2") and len(letters) <= 1
    assert "records settled" not in said or found.low > found.records["r4"]


@pytest.mark.slow
async def test_no_statement_is_a_bad_one_to_die_at(tmp_path: Path) -> None:
    survived = 0
    for fatal, path, status, said in crashes(tmp_path):
        before = Found(path)
        assert before.integrity == "ok"
        check_jobs(before, said)
        check_records(before, said)
        async with SqliteTransport(path) as transport:
            await transport.neighbours.look()
            after = Found(path)
        assert (after.held, after.owners) == (
            0,
            0,
        ), f"something is still in a dead hand after statement {fatal}"
        assert sorted(after.jobs) == sorted(before.jobs) and after.dead == before.dead
        survived = fatal if status == 0 else survived
    assert survived > 60
