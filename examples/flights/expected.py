"""What must come out, computed straight from the CSV without busline: `python -m examples.flights.expected FILE`."""

import csv
import gzip
import json
import sys
from pathlib import Path
from typing import Any

MISSING = ("", "NA")


def expected(path: Path) -> dict[str, Any]:
    """Figures by carrier, the late flights with their minutes, and how many rows are broken on purpose."""
    carriers: dict[str, dict[str, int]] = {}
    late: dict[str, int] = {}
    broken = 0
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            one = carriers.setdefault(row["carrier"], {"flights": 0, "cancelled": 0, "arrived": 0, "minutes_late": 0})
            one["flights"] += 1
            one["cancelled"] += row["dep_time"] in MISSING
            if row["arr_delay"] not in MISSING:
                one["arrived"] += 1
                one["minutes_late"] += int(row["arr_delay"])
                broken += number % 97 == 0
                if int(row["arr_delay"]) > 180:
                    late[f"{row['time_hour'][:13]}/{row['carrier']}/{row['flight']}"] = int(row["arr_delay"])
    return {"carriers": dict(sorted(carriers.items())), "late": late, "broken": broken}


if __name__ == "__main__":
    print(json.dumps(expected(Path(sys.argv[1]))))
