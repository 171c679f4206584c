"""The airports: they publish rows as they have them, now and then a broken one. `python -m examples.flights.producer FILE`."""

import asyncio
import csv
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from busline import App, Topic

NUMBERS = ("flight", "dep_time", "dep_delay", "arr_delay")
FIELDS = ("time_hour", "carrier", "flight", "tailnum", "origin", "dest", "dep_time", "dep_delay", "arr_delay")
BROKEN_EVERY = 97

rows_topic: Topic[dict[str, Any]] = Topic("flights", dict[str, Any], key=lambda row: row["tailnum"])
airports = App("airports", publishes=[rows_topic])


def open_text(path: Path) -> TextIO:
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The file's rows as the airports send them; every 97th that arrived has its delay as text."""
    with open_text(path) as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            sent = {name: _value(name, row[name]) for name in FIELDS}
            if number % BROKEN_EVERY == 0 and sent["arr_delay"] is not None:
                sent["arr_delay"] = f"{sent['arr_delay']} min"
            yield sent


def _value(name: str, text: str) -> Any:
    if text in ("", "NA"):
        return None
    return int(text) if name in NUMBERS else text


async def produce(path: Path) -> int:
    async with airports:
        return await airports.publish_many(rows_topic, rows(path))


if __name__ == "__main__":
    print(f"published {asyncio.run(produce(Path(sys.argv[1])))}")
