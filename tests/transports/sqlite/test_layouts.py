"""Files of older layouts become today's, whole or not at all, and nothing in them is lost.

`layouts/1.sql` is a file of layout 1; `1-later.sql` one of builds that had added to it under the
same number. Both were left by a killed process."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from busline.core.errors import Invalid
from busline.testing.contract import MAIL, Desk, ack, message, receive
from busline.transports.sqlite import SqliteTransport
from busline.transports.sqlite.errors import Outdated
from busline.transports.sqlite.steps import LAYOUT
from tests.transports.sqlite.conftest import Engines

OLDER = sorted((Path(__file__).parent / "layouts").glob("*.sql"))
older = pytest.mark.parametrize("text", OLDER, ids=lambda path: path.stem)


def make(path: Path, text: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(text.read_text())


def tables(path: Path) -> dict[str, object]:
    """What the file has: the columns of each table, the text of each index."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
        return {
            name: db.execute(f"PRAGMA table_xinfo({name})").fetchall() if kind == "table" else sql
            for kind, name, sql in found
        }


def layout(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


async def run_all(desk: Desk, jobs: int) -> list[str]:
    """The jobs and records that are handled, with the second letter redriven."""
    receiver = await desk.take(tasks=frozenset({"send", "new"}))
    found = await receive(receiver, jobs)
    assert await ack(receiver, found) == []
    desk.clock.move(100.0)
    assert await desk.transport.inspector.redrive(["dead"]) == (1, ())
    later = await receive(receiver, 3)
    assert await ack(receiver, later) == []
    reader = await desk.read(desk.orders._replace(partitions=2))
    records = await receive(reader, 3)
    assert await ack(reader, records) == []
    return sorted(one.message.id for one in (*found, *later, *records))


@older
async def test_what_an_older_file_holds_is_handled_once(engines: Engines, text: Path) -> None:
    make(engines.path, text)
    aside = ["aside"] if text.stem == "1-later" else []
    desk = await engines.desk()
    inspector, store = desk.transport.inspector, desk.transport.store

    assert await desk.transport.publish(MAIL, [message(id="done", remember=9.0)]) == {0: "done"}
    assert await desk.transport.publish(MAIL, [message(unique="v")]) == {0: "locked"}
    handled = await run_all(desk, 3 + len(aside))

    jobs = ["dead", "delayed", "locked", "retrying", "running", "waiting", *aside]
    assert handled == sorted([*jobs, "r1", "r3", "r4"])
    assert [one.id for one in await inspector.dead()] == ["r5", "redriven"]
    assert await store.get(["fact", "result/done"]) == [b"kept", b"+1"]
    assert (await inspector.depth()) == {} and [one.behind for one in await inspector.lag()] == [0]
    assert sum(one.handled for one in (await inspector.counts()).values()) == 3 + len(handled)


@older
async def test_an_older_file_gets_the_tables_of_a_new_one(tmp_path: Path, text: Path) -> None:
    make(tmp_path / "old.db", text)
    for name in ("old.db", "new.db"):
        async with SqliteTransport(tmp_path / name):
            pass

    assert tables(tmp_path / "old.db") == tables(tmp_path / "new.db")
    assert layout(tmp_path / "old.db") == layout(tmp_path / "new.db") == LAYOUT


KILLED = """
import os, sqlite3, sys
from busline.transports.sqlite.steps import STEPS, climb
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
climb(db, [*STEPS, lambda db: os.kill(os.getpid(), 9)])
"""


@older
async def test_a_kill_between_two_steps_leaves_the_file_as_it_was(
    tmp_path: Path, text: Path
) -> None:
    path = tmp_path / "bus.db"
    make(path, text)
    before = tables(path)

    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == (
        -signal.SIGKILL
    )

    assert (tables(path), layout(path)) == (before, 1)


async def test_a_file_of_a_newer_layout_is_refused_by_name_and_left_alone(engines: Engines) -> None:
    async with SqliteTransport(engines.path):
        pass
    with closing(sqlite3.connect(engines.path)) as db:
        db.execute(f"PRAGMA user_version = {LAYOUT + 1}")
        db.execute("ALTER TABLE job ADD COLUMN later TEXT")
    before = engines.path.read_bytes()

    with pytest.raises(
        Invalid,
        match=(
            rf"bus\.db': expected layout {LAYOUT} or older, got layout {LAYOUT + 1}, of a newer"
            r" busline\. Upgrade busline, or name another file\."
        ),
    ):
        await engines.open()

    assert engines.path.read_bytes() == before


async def test_a_process_writes_nothing_into_a_file_that_a_newer_one_has_changed(
    engines: Engines,
) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    await desk.transport.publish(MAIL, [message(id="a")])
    held = await receive(receiver, 1)
    with closing(sqlite3.connect(engines.path)) as db:
        db.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    said = rf"expected layout {LAYOUT}, got layout {LAYOUT + 1}, which a newer busline made"

    for ask in (
        desk.transport.publish(MAIL, [message()]),
        ack(receiver, held),
        receive(receiver, 1),
    ):
        with pytest.raises(Outdated, match=said):
            await ask

    assert (await desk.transport.inspector.look("a")).state == "running"
    with closing(sqlite3.connect(engines.path)) as db:
        assert db.execute("SELECT COUNT(*) FROM job").fetchone() == (1,)
