"""What functions write down: a line when a run begins and one when it ends. SIGKILL cannot take one
back."""

import os
import time
from functools import cache
from pathlib import Path

from tests.faults.judge import Line


@cache
def _descriptor() -> int:
    return os.open(os.environ["ATTACK_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def write(what: str, number: int, key: str, place: str) -> None:
    """One write to the kernel: lines of several processes do not mix."""
    os.write(
        _descriptor(), f"{what} {time.monotonic()} {os.getpid()} {number} {key} {place}\n".encode()
    )


def read(path: Path) -> list[Line]:
    """Every line, in the order in which they were written."""
    return [_line(one) for one in path.read_text().splitlines()]


def _line(text: str) -> Line:
    what, at, process, number, key, place = text.split(" ")
    return Line(what, float(at), int(process), int(number), key, place)
