"""The example's own table: one row for each flight, however often it is delivered."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from examples.flights.model import Flight

TABLE = """CREATE TABLE IF NOT EXISTS flown(time_hour TEXT, carrier TEXT, flight INTEGER, arr_delay INTEGER, cancelled INTEGER,
           PRIMARY KEY(time_hour, carrier, flight)) WITHOUT ROWID"""
CARRIERS = """SELECT carrier, COUNT(*), SUM(cancelled), COUNT(arr_delay), COALESCE(SUM(arr_delay), 0) FROM flown
              GROUP BY carrier ORDER BY carrier"""


class Statistics:
    """Delays by carrier, in a SQLite file of the user's."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(TABLE)

    def add(self, flight: Flight) -> None:
        row = (flight.time_hour.isoformat(), flight.carrier, flight.flight, flight.arr_delay, flight.cancelled)
        self._db.execute("INSERT OR REPLACE INTO flown VALUES(?, ?, ?, ?, ?)", row)

    def carriers(self) -> Iterator[tuple[str, dict[str, int]]]:
        for carrier, *numbers in self._db.execute(CARRIERS):
            yield carrier, dict(zip(("flights", "cancelled", "arrived", "minutes_late"), numbers, strict=True))

    def close(self) -> None:
        self._db.close()
