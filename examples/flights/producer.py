"""The airports: they publish rows as they have them, every 97th broken. `python -m
examples.flights.producer FILE`."""

import asyncio
import csv
import gzip
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeAlias

from busline import App, Topic

Row: TypeAlias = dict[str, str | int | None]
FIELDS = (
    "time_hour",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "dep_time",
    "dep_delay",
    "arr_delay",
)
NUMBERS = ("flight", "dep_time", "dep_delay", "arr_delay")
BROKEN_EVERY = 97
PAUSE = 0.1  # seconds between two handfuls of a stream

# the subscriber's topic as its senders see it: any JSON object, so that they can be wrong
wire: Topic[Row] = Topic("flights", Row, key=lambda row: row["tailnum"])
airports = App("airports", publishes=[wire])


def open_text(path: Path) -> TextIO:
    return gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")


def rows(path: Path) -> Iterator[Row]:
    """The file's rows as the airports send them: numbers as numbers, NA as null, some broken on
    purpose."""
    with open_text(path) as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            sent = {name: _value(name, row[name]) for name in FIELDS}
            yield sent if number % BROKEN_EVERY else broken(sent)


def _value(name: str, text: str) -> str | int | None:
    if text in ("", "NA"):
        return None
    return int(text) if name in NUMBERS else text


def broken(row: Row) -> Row:
    """The delay as text with its unit where there is one and the flight's number is even, else a
    lower-case carrier."""
    if row["arr_delay"] is not None and int(str(row["flight"])) % 2 == 0:
        return row | {"arr_delay": f"{row['arr_delay']} min"}
    return row | {"carrier": str(row["carrier"]).lower()}


async def produce(rows: Iterable[Row]) -> int:
    """Publishes all rows, as fast as it goes; returns how many."""
    async with airports:
        return await airports.publish_many(wire, rows)


async def stream(rows: Iterable[Row], *, handful: int, told: Callable[[int], None]) -> None:
    """Publishes a handful of rows ten times a second, and tells how many."""
    left = iter(rows)
    async with airports:
        while published := await airports.publish_many(wire, islice(left, handful)):
            told(published)
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    print(f"published {asyncio.run(produce(rows(Path(sys.argv[1]))))}")
