"""The example's own table: one row for each flight, however often it is delivered."""

import sqlite3
from pathlib import Path

from examples.flights.model import Flight

TABLE = """CREATE TABLE IF NOT EXISTS flown(
           time_hour TEXT, carrier TEXT, flight INTEGER, arr_delay INTEGER, cancelled INTEGER,
           diverted INTEGER,
           PRIMARY KEY(time_hour, carrier, flight)) WITHOUT ROWID"""
CARRIERS = """SELECT carrier, COUNT(*), SUM(cancelled), SUM(diverted), COALESCE(SUM(arr_delay),
0) FROM flown
              GROUP BY carrier ORDER BY carrier"""
FIGURES = ("flights", "cancelled", "diverted", "minutes_late")


class Statistics:
    """Delays by carrier, in a SQLite file of the user's. Adding a flight again changes nothing."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(TABLE)

    def add(self, flight: Flight) -> None:
        key = (flight.time_hour.isoformat(), flight.carrier, flight.flight)
        row = (*key, flight.arr_delay, flight.cancelled, flight.diverted)
        self._db.execute("INSERT OR REPLACE INTO flown VALUES(?, ?, ?, ?, ?, ?)", row)

    def count(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM flown").fetchone()[0])

    def carriers(self) -> dict[str, dict[str, int]]:
        """The figures of each carrier, by its code."""
        return {
            carrier: dict(zip(FIGURES, row, strict=True))
            for carrier, *row in self._db.execute(CARRIERS)
        }

    def close(self) -> None:
        self._db.close()
