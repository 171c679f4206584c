"""Files that cannot be used: real ones. Each is one clear text, and what was in them stays."""

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from busline import App, Invalid, Unavailable
from busline.engine import engine
from busline.naming import implicit_file
from busline.transports.sqlite import SqliteTransport, lock, opening


def job_app(path: Path) -> App:
    app = App("a", jobs=f"sqlite:///{path}")
    app.setting.patience = 0.1  # a file that is locked stays so

    @app.task
    async def work(n: int) -> int:
        return n

    return app


async def fill(path: Path, count: int = 3) -> None:
    app = job_app(path)
    async with app:
        await app.enqueue_many(app.tasks[0].call(n) for n in range(count))


async def waiting(path: Path) -> int:
    async with SqliteTransport(path) as engine:
        return (await engine.inspector.depth())["a"].waiting


async def said(path: Path) -> str:
    with pytest.raises((Invalid, Unavailable)) as caught:
        await fill(path)
    return str(caught.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    path.write_bytes(b"my precious notes, no database at all" * 100)

    assert (
        await said(path)
        == f"'{path}': expected a SQLite database, got a damaged or another file (file is not a"
        " database). Restore it from a copy, or move it away to begin afresh."
    )
    assert path.read_bytes().startswith(b"my precious notes")


async def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    await fill(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    assert (
        await said(path)
        == f"'{path}': expected layout 2 or older, got layout 99, of a newer busline. Upgrade"
        " busline, or name another file."
    )


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none" / "bus.db"
    assert (
        await said(path)
        == f"'{path}': expected a file in a folder that can be written, got No such file or"
        " directory. Name another path, or mend the permissions."
    )


async def test_a_file_that_another_program_has_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bus.db"
    await fill(path)
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    monkeypatch.setattr("busline.transports.sqlite.session.PATIENCE", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    assert (
        await said(path)
        == f"'{path}': expected a database that can be written, got one that another program has"
        " locked. End that program's transaction."
    )
    other.execute("ROLLBACK")
    other.close()
    assert await waiting(path) == 3


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small file system of its own, where we may mount one."""
    folder.mkdir(exist_ok=True)
    if (
        os.getuid() != 0
        or subprocess.run(
            ["mount", *options, str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.fail("this test mounts a small tmpfs: run it as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_said_and_recovered_from(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as folder:
        path = folder / "bus.db"
        await fill(path)
        app = job_app(path)
        ballast = folder / "ballast"
        async with app:
            with pytest.raises(OSError), ballast.open("wb") as out:
                while True:
                    out.write(b"x" * 4096)
                    out.flush()
            with pytest.raises(Unavailable) as caught:
                await app.enqueue_many(app.tasks[0].call(n) for n in range(2000))
            assert (
                str(caught.value)
                == f"'{path}': expected room on the disk, got a full one. Free some: nothing was"
                " lost, this write was not done."
            )
            ballast.unlink()
            await app.tasks[0].enqueue(1)
        assert await waiting(path) == 4


async def test_a_read_only_file(tmp_path: Path) -> None:
    folder = tmp_path / "ro"
    with mounted(folder, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        path = folder / "bus.db"
        await fill(path)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert "Read-only file system" in await said(path) or "a read-only one" in await said(path)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        assert await waiting(path) == 3


def test_a_network_file_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path} rw - nfs4 server:/export rw\n"
    monkeypatch.setattr(opening, "MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "mountinfo").write_text(lines)
    with pytest.raises(Invalid) as caught:
        opening.check_machine(tmp_path / "bus.db")
    assert (
        str(caught.value)
        == f"'{tmp_path}/bus.db': expected a file on a disk of this machine, got one on nfs4. Name"
        " a local path: SQLite loses writes on network file systems."
    )


@pytest.mark.parametrize(
    "variable", ["KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4", "K_SERVICE"]
)
def test_no_implicit_file_where_the_machine_is_thrown_away(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(
        Invalid,
        match="expected a named one under .*, got none. Set BUSLINE_STREAMS and BUSLINE_JOBS",
    ):
        implicit_file(None)


def test_no_implicit_file_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSLINE_ENV", "production")
    with pytest.raises(Invalid, match="BUSLINE_ENV=production"):
        implicit_file(None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "amqp://me:s3cret@host/",
            (
                "'amqp://host/': expected memory://, sqlite:///relative, sqlite:////absolute,"
                " redis://host or kafka://host,host, got 'amqp://'."
            ),
        ),
        (
            "sqlite://",
            (
                "'sqlite://': expected sqlite:///relative or sqlite:////absolute, got no path."
                " Write three slashes and a path."
            ),
        ),
        (
            "sqlite:///x?sync=never",
            "expected sync=normal or sync=full after the `?`, got sync=never.",
        ),
    ],
)
def test_a_wrong_url_shows_no_secret(url: str, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        engine(url)
    assert expected in str(caught.value) and "s3cret" not in str(caught.value)


async def test_a_locked_file_ends_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bus.db"
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    await fill(path, 50)
    app = job_app(path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(0.5, other.execute, "ROLLBACK")
    async with app.running(), asyncio.timeout(20):
        other.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0.3)
        other.execute("ROLLBACK")
        while app.bus().counts.get("work") is None or app.bus().counts["work"].handled < 50:
            await asyncio.sleep(0.01)
    other.close()
