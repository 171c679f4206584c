"""The thread and its file: what fails alone, what is said, what a locked, full or lost file
does."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from busline.core.errors import Invalid, Unavailable
from busline.core.message import Delivery
from busline.core.outcome import ACKED, Acked, Keep
from busline.core.ports import Receiver
from busline.testing.contract import MAIL, OTHER, bodies, message, receive
from busline.transports.sqlite import SqliteTransport, lock, session
from busline.transports.sqlite.database import PASSIVE, Database
from busline.transports.sqlite.errors import Gone
from tests.transports.sqlite.conftest import Engines


async def test_only_the_guilty_one_of_a_turn_fails(engines: Engines) -> None:
    transport = await engines.open()
    messages = [message(), message(task="\ud800"), message(), message(unique="\ud800")]

    answers = await asyncio.gather(
        *[transport.publish(MAIL, [one]) for one in messages], return_exceptions=True
    )

    assert [isinstance(one, Invalid) for one in answers] == [False, True, False, True]
    assert (await transport.inspector.depth())["mail"].waiting == 2


async def test_a_checkpoint_that_fails_takes_nothing_back_and_repeats_nothing(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = await engines.open()

    def fail(self: Database) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Database, "_checkpoint", fail)

    await asyncio.gather(*[transport.publish(MAIL, [message()]) for _ in range(3)])

    assert (await transport.inspector.depth())["mail"].waiting == 3


async def test_the_write_ahead_log_stays_small(engines: Engines, tmp_path: Path) -> None:
    transport = await engines.open()
    for _ in range(40):
        await transport.publish(MAIL, [message(b"x" * 10_000) for _ in range(50)])

    assert (tmp_path / "bus.db-wal").stat().st_size < 3 * PASSIVE


async def test_a_full_disk_is_said_at_once_and_recovered_from(engines: Engines) -> None:
    transport, desk = await engines.open(), await engines.desk()
    await transport.publish(MAIL, [message(b"first")])
    pages = transport.file._database.connection.execute("PRAGMA page_count").fetchone()[0]
    transport.file._database.connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    with pytest.raises(Unavailable, match="room on the disk, got a full one"):
        await transport.publish(MAIL, [message(b"x" * 100_000)])

    assert bodies(await receive(await desk.take(), 1)) == [b"first"]
    transport.file._database.connection.execute("PRAGMA max_page_count = 1000000")
    await transport.publish(MAIL, [message(b"x" * 100_000)])
    assert (await transport.inspector.depth())["mail"][:4] == (1, 0, 0, 1)


def write_elsewhere(path: Path, seconds: float) -> threading.Thread:
    """A foreign program that holds the file for so long."""
    held = threading.Event()

    def hold() -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        held.set()
        time.sleep(seconds)
        db.execute("ROLLBACK")
        db.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    return thread


async def test_a_foreign_programs_write_is_waited_for(engines: Engines) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    foreign = write_elsewhere(engines.path, 2.5)

    await desk.transport.publish(MAIL, [message(b"x")])

    foreign.join()
    assert bodies(await receive(receiver, 1)) == [b"x"]


async def test_a_file_that_stays_locked_is_named_with_the_remedy(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await engines.desk()
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    monkeypatch.setattr(session, "PATIENCE", 0.3)
    foreign = write_elsewhere(engines.path, 1.0)

    with pytest.raises(
        Unavailable,
        match=(
            r"bus\.db': expected a database that can be written, got one that another program has"
            r" locked\. End that"
        ),
    ):
        await desk.transport.publish(MAIL, [message(b"x")])
    receiver = await desk.take()
    with pytest.raises(Unavailable):
        await receiver.receive(1)

    foreign.join()
    await desk.transport.publish(MAIL, [message(b"y")])
    assert bodies(await receive(receiver, 1)) == [b"y"]


async def test_the_process_that_holds_the_lock_is_named(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await engines.desk()
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    receiver = await desk.take()
    with Path(f"{engines.path}.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(
            Unavailable, match=f"got one that process {os.getpid()} has locked. Is it stopped"
        ):
            await receiver.receive(1)


async def test_opening_waits_for_a_foreign_programs_write(engines: Engines) -> None:
    await engines.open()
    foreign = write_elsewhere(engines.path, 2.5)

    other = await engines.open()

    foreign.join()
    assert await other.inspector.depth() == {}


async def test_settling_again_after_a_locked_file_applies_all_of_it_once(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await engines.desk()
    await desk.transport.publish(OTHER, [message(b"a")])
    await desk.transport.publish(type(OTHER)("topic", "more", 1), [message(b"b")])
    receiver = await desk.read(OTHER, type(OTHER)("topic", "more", 1))
    got = await receive(receiver, 2)
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    foreign = write_elsewhere(engines.path, 0.5)
    with pytest.raises(Unavailable):
        await receiver.settle([(one, ACKED) for one in got])
    foreign.join()

    assert (await receiver.settle([(one, ACKED) for one in got])).refused == []
    assert [one.behind for one in await desk.transport.inspector.lag()] == [0, 0]


async def test_nothing_is_confirmed_that_goes_into_a_file_that_was_moved(engines: Engines) -> None:
    transport, confirmed = await engines.open(), set[str]()
    moved = engines.path.with_name("moved.db")

    async def send(n: int) -> None:
        with contextlib.suppress(Gone):
            await transport.publish(MAIL, [message(id=f"{n}")])
            confirmed.add(f"{n}")

    for n in range(0, 200, 10):
        sends = asyncio.gather(*[send(n + more) for more in range(10)])
        await asyncio.sleep(0)
        engines.path.rename(moved)
        await sends
        with pytest.raises(Unavailable, match="it was moved or deleted"):
            await transport.publish(MAIL, [message()])
        with pytest.raises(Unavailable, match="it was moved or deleted"):
            await transport.inspector.depth()
        moved.rename(engines.path)
        await send(1000 + n)

    assert {f"{1000 + n}" for n in range(0, 200, 10)} <= confirmed
    assert {
        id for id in confirmed if (await transport.inspector.look(id)).state != "waiting"
    } == set()


async def test_it_goes_on_with_another_file_that_is_put_in_the_place_of_its_own(
    engines: Engines,
) -> None:
    desk = await engines.desk()
    jobs, records = await desk.take(), await desk.read(OTHER)
    await desk.transport.publish(MAIL, [message(b"old")])
    (old,) = await receive(jobs, 1)
    for one in engines.path.parent.glob("bus.db*"):
        if one.is_file():
            one.unlink()

    fresh = await engines.open()
    await fresh.publish(MAIL, [message(b"new")])
    await fresh.publish(OTHER, [message(b"record")])
    waiting = [asyncio.ensure_future(again(one)) for one in (jobs, records)]
    engines.clock.move(1.1)  # a look

    assert [bodies(await one) for one in waiting] == [[b"new"], [b"record"]]
    assert desk.host.recalled == [old] and (await jobs.settle([(old, ACKED)])).refused == [old]
    numbers = {one.process.n for one in (fresh, desk.transport) if isinstance(one, SqliteTransport)}
    assert (
        len(numbers) == 2
        and {int(one.stem) for one in fresh.process.folder.glob("*.lock")} == numbers
    )


async def again(receiver: Receiver) -> list[Delivery]:
    """What a worker does: it asks until the engine is back."""
    while True:
        try:
            return await receive(receiver, 1)
        except Unavailable:
            await asyncio.sleep(0.01)


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE precious(x)")
    db.close()

    with pytest.raises(Invalid, match="got a database of another program"):
        async with SqliteTransport(path):
            pass

    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("precious",)]
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()


async def test_what_is_asked_after_closing_is_refused(engines: Engines, tmp_path: Path) -> None:
    async with SqliteTransport(tmp_path / "closed.db") as transport:
        await transport.publish(MAIL, [message(b"x")])

    with pytest.raises(Unavailable, match="one that was closed"):
        await transport.publish(MAIL, [message()])
    async with transport:
        assert (await transport.inspector.depth())["mail"].waiting == 1


async def test_closing_in_the_middle_of_a_look_leaves_nothing_behind(
    engines: Engines, tmp_path: Path
) -> None:
    async with SqliteTransport(tmp_path / "look.db", clock=engines.clock):
        engines.clock.move(1.1)  # a look begins
    engines.clock.move(5)

    assert len(asyncio.all_tasks()) == 1
    assert list((tmp_path / "look.db.workers").iterdir()) == []


async def test_facts_and_ids_whose_time_is_over_are_removed(engines: Engines) -> None:
    desk = await engines.desk()
    transport = await engines.open()
    await transport.publish(MAIL, [message(id="x", remember=10.0)])
    receiver = await desk.take()
    await receiver.settle([((await receive(receiver, 1))[0], Acked((Keep("k", b"v", 10),)))])
    await transport.store.put("stays", b"v", 100)
    engines.clock.move(11)

    await transport.neighbours.look()

    rows = "SELECT key FROM fact UNION ALL SELECT id FROM known"
    assert await transport.file.read(lambda db: db.execute(rows).fetchall()) == [("stays",)]
