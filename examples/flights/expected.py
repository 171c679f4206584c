"""What must come out, computed straight from the CSV, without busline and without the rest of the
example.

`python -m examples.flights.expected FILE` prints it as JSON.
"""

import csv
import gzip
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

MISSING = ("", "NA")


@dataclass(slots=True)
class Expected:
    """`late`: by flight, the minutes late on arrival and at departure. `retried`: explanations that
    fail once."""

    rows: int = 0
    broken: int = 0
    retried: int = 0
    carriers: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    late: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def add(self, row: dict[str, str]) -> None:
        self.broken += self.rows % 97 == 0
        self.rows += 1
        figures = {"flights": 0, "cancelled": 0, "diverted": 0, "minutes_late": 0}
        carrier = self.carriers.setdefault(row["carrier"], figures)
        carrier["flights"] += 1
        if row["dep_time"] in MISSING:
            carrier["cancelled"] += 1
        elif row["arr_delay"] in MISSING:
            carrier["diverted"] += 1
        else:
            carrier["minutes_late"] += int(row["arr_delay"])
            self._add_late(row)

    def _add_late(self, row: dict[str, str]) -> None:
        if int(row["arr_delay"]) > 180:
            self.late[f"{row['time_hour'][:13]}/{row['carrier']}/{row['flight']}"] = [
                int(row["arr_delay"]),
                int(row["dep_delay"]),
            ]
            self.retried += int(row["flight"]) % 3 == 0


def expected(path: Path, limit: int | None = None) -> Expected:
    """Of the file's first `limit` rows, or of all."""
    found = Expected()
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            if number == limit:
                break
            found.add(row)
    found.carriers = dict(sorted(found.carriers.items()))
    return found


if __name__ == "__main__":
    print(json.dumps(asdict(expected(Path(sys.argv[1]))), indent=2))
