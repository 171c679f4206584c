"""`busline` in child processes. They and this process share one folder, named by the
environment."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

APP = "examples.flights.app:app"
ROOT = Path(__file__).parents[2]


def settle_in(folder: Path) -> None:
    """The engine's file, the statistics and the worker's log are in this folder from now on."""
    os.environ["BUSLINE_STREAMS"] = os.environ["BUSLINE_JOBS"] = f"sqlite:///{folder / 'bus.db'}"
    os.environ["FLIGHTS_STATISTICS"] = str(folder / "statistics.db")
    os.environ["FLIGHTS_LOG"] = str(folder / "worker.log")
    for name in ("FLIGHTS_MODEL", "FLIGHTS_LEDGER"):
        os.environ.pop(name, None)
    logging.basicConfig(filename=os.environ["FLIGHTS_LOG"], force=True)


def worker(*options: str) -> subprocess.Popen[bytes]:
    """Starts `busline run`; it tells its story to the log."""
    with open_log() as log:
        return subprocess.Popen([*_busline("run", APP), *options], stderr=log, cwd=ROOT)


def check_ended(status: int) -> None:
    """Raises SystemExit, with the end of the log, unless a worker ended well or by our SIGKILL."""
    if status not in (0, -9):
        tail = Path(os.environ["FLIGHTS_LOG"]).read_text().splitlines()[-40:]
        sys.exit("\n".join([f"the worker ended with status {status}:", *tail]))


def busline(command: str, *options: str) -> Any:
    """What a command about the example says with --json."""
    words = _busline(*command.split(), APP, *options, "--json")
    with open_log() as log:
        return json.loads(
            subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=log, cwd=ROOT).stdout
        )


async def inspect() -> Any:
    """What `busline inspect --json` says; None where it cannot, as before the first record."""
    words = _busline("inspect", APP, "--json")
    with open_log() as log:
        process = await asyncio.create_subprocess_exec(
            *words, stdout=subprocess.PIPE, stderr=log, cwd=ROOT
        )
    out, _ = await process.communicate()
    return json.loads(out) if process.returncode == 0 else None


def open_log() -> BinaryIO:
    return open(os.environ.get("FLIGHTS_LOG", os.devnull), "ab")


def _busline(*words: str) -> list[str]:
    return [sys.executable, "-m", "busline", *words]
