"""Real processes on one file: killed, stopped and continued. Every message is handled, every effect
is there once."""

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from busline.core.ids import new_id
from busline.core.message import Message
from busline.testing.clock import SimClock
from busline.transports.sqlite import SqliteTransport, process
from busline.transports.sqlite.neighbours import LOOK
from tests.transports.sqlite import child

LEASE = 1.0


class Child:
    """One process; `said` waits for a line that begins so."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdout is not None
        self._lines = process.stdout

    @classmethod
    async def start(cls, path: Path, lease: float = LEASE, look: float = LOOK) -> "Child":
        pipe = asyncio.subprocess.PIPE
        made = cls(
            await asyncio.create_subprocess_exec(
                sys.executable, child.__file__, str(path), str(lease), str(look), stdout=pipe
            )
        )
        await made.said("up")
        return made

    async def said(self, beginning: str) -> str:
        async with asyncio.timeout(20):
            while line := (await self._lines.readline()).decode():
                if line.startswith(beginning):
                    return line.strip()
        raise AssertionError(f"it ended before it said '{beginning}'")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def stop(self, path: Path) -> None:
        """Outside of a transaction: a process that is stopped in one holds up all others."""
        with open(f"{path}.lock") as lock:
            while True:
                self.signal(signal.SIGSTOP)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self._lines.read()
        await self._process.wait()


async def fill(transport: SqliteTransport, count: int, prefix: str = "") -> set[str]:
    ids = [f"{prefix}{n}" for n in range(count)]
    soon = time.time() + 0.3
    await transport.publish(
        child.JOBS,
        [Message(f"j{id}", b"{}", due=soon if n % 3 == 0 else None) for n, id in enumerate(ids)],
    )
    await transport.publish(
        child.RECORDS, [Message(f"r{id}", b"{}", key=id.encode()) for id in ids]
    )
    return {f"{kind}{id}" for kind in "jr" for id in ids}


def found(path: Path) -> Counter[str]:
    """What was done, and how often; a dead letter counts as done."""
    db = sqlite3.connect(path)
    done = [
        bytes(row[0]).decode() for row in db.execute("SELECT body FROM job WHERE queue = 'done'")
    ]
    dead = [row[0] for row in db.execute("SELECT id FROM dead")]
    db.close()
    return Counter(done + dead)


async def until_done(path: Path, ids: set[str], seconds: float) -> float:
    """How long it takes until everything is done; then everything was done once."""
    begun = time.monotonic()
    async with asyncio.timeout(seconds):
        while set(found(path)) != ids:
            await asyncio.sleep(0.02)
    assert set(found(path).values()) == {1}
    return time.monotonic() - begun


async def test_what_a_killed_process_had_in_hand_runs_elsewhere_within_about_a_second(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bus.db"
    async with SqliteTransport(path) as transport:
        victim = await Child.start(path, 20.0)
        ids = await fill(transport, 20)
        await victim.said("took")
        await victim.kill()
        heir = await Child.start(path, 20.0)

        assert await until_done(path, ids, 10) < 3

        await heir.kill()


async def test_one_that_is_killed_before_its_first_look_makes_progress_in_every_life(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bus.db"
    # its clock stands: it never looks
    async with SqliteTransport(path, clock=SimClock()) as transport:
        await transport.publish(
            child.RECORDS, [Message(new_id(), b"{}", key=b"%d" % n) for n in range(200)]
        )
        for _ in range(4):
            victim = await Child.start(path, 20.0, look=3600)
            await victim.said("took")
            await victim.kill()


async def test_a_process_that_was_stopped_past_its_lease_settles_nothing_and_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bus.db"
    async with SqliteTransport(path) as transport:
        victim = await Child.start(path)
        ids = await fill(transport, 20)
        await victim.said("took")
        await victim.stop(path)
        heir = await Child.start(path)
        await until_done(path, ids, 15)
        await heir.kill()

        victim.signal(signal.SIGCONT)
        await victim.said("lost")

        await until_done(path, ids | await fill(transport, 20, "more"), 15)
        await victim.kill()


async def test_random_deaths_and_stops_lose_and_double_nothing(tmp_path: Path) -> None:
    path, chance = tmp_path / "bus.db", random.Random(int(os.environ.get("BUSLINE_SEED", "1")))
    seconds = float(os.environ.get("BUSLINE_FAULT_SECONDS", "6"))
    async with SqliteTransport(path, lease=LEASE) as transport:
        children = [await Child.start(path) for _ in range(3)]
        ids, end, round = set[str](), time.monotonic() + seconds, 0
        while time.monotonic() < end:
            ids |= await fill(transport, 50, f"{round}.")
            round += 1
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            n = chance.randrange(3)
            if chance.random() < 0.3:
                await _freeze(children[n])
            else:
                await children[n].kill()
                children[n] = await Child.start(path)
        await until_done(path, ids, 60)
        for one in children:
            await one.kill()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


async def _freeze(child: Child) -> None:
    child.signal(signal.SIGSTOP)
    await asyncio.sleep(LEASE + 1.2)
    child.signal(signal.SIGCONT)


async def test_after_a_sleep_of_the_machine_the_others_may_beat_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        SqliteTransport(tmp_path / "bus.db") as one,
        SqliteTransport(tmp_path / "bus.db") as other,
    ):
        slept = 3600 * process.SECOND
        monkeypatch.setattr(
            process, "ticks", lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) + slept
        )

        assert one.process.dead([other.process.n], 20.0) == {}

        slept += 4 * process.SECOND
        assert one.process.dead([other.process.n], 20.0) == {}
        slept += 4 * process.SECOND
        assert one.process.dead([other.process.n], 20.0) == {other.process.n: False}


async def test_files_left_by_one_that_died_while_registering_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    async with SqliteTransport(path) as transport:
        await transport.publish(child.JOBS, [Message(new_id(), b"{}")])
        number = transport.process.n + 1
        (transport.process.folder / f"{number}.lock").touch()
        os.mkfifo(transport.process.folder / f"{number}.wake")

        async with SqliteTransport(path) as other:
            assert other.process.n == number
            assert (await other.inspector.depth())["jobs"].waiting == 1


async def test_no_commit_fails_because_the_others_cannot_be_woken(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    async with SqliteTransport(path) as transport:
        (transport.process.folder / "99.wake").mkdir()
        await transport.publish(child.JOBS, [Message(new_id(), b"{}")])
        (transport.process.folder / "99.wake").rmdir()

        assert (await transport.inspector.depth())["jobs"].waiting == 1
