"""What the attacks found, as a table, as JSON, and as docs/reliability.md."""

import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.faults.attacks import NODES, Attack
from tests.faults.judge import Verdict
from tests.servers import kafka, redis

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEAD = """# Reliability

What `./scripts/faults --report` measured: workers in processes of their own, records or jobs
published without a pause, and one kind of fault again and again meanwhile. Each function writes a
line when it begins and one when it ends, and sends one message. A judge reads these lines, what
another client saw of the commits, and what the engine has left in the end.

"""
TAIL = """
- **lost**: published and confirmed, and never run to its end, or its effect is nowhere, or it is a
  dead letter, or the engine is not empty in the end.
- **doubled beyond the promise**: ran again, though the first run was neither under way when its
  process was killed or frozen, nor had ended just before: within a second, for a busy machine, and
  on Kafka the 0.25 s between commits; or an effect too many: on Redis and SQLite each effect comes
  once, on Kafka once for each run, or more often where the answer of a broker was lost. What ran
  again as [the guarantees](guarantees.md) say is in the column before.
- **out of order**: a record began before the one before it of its key had ended.
- **early commits**: a position above a record that had not ended, as another client saw it.
- **went on after**: the longest time since the fault in which a partition, or the queue, finished
  nothing, or until everything that was cut had ended. A killed worker's work waits for its lease or
  session: here 2 and 3 seconds, by default 20 and 30.

The judge is tried itself: tests plant a lost message, a double, broken order and an early commit,
and each is found. Every attack runs in a short form with the tests.

```console
$ ./scripts/faults                              # all, a minute each
$ ./scripts/faults --only redis-frozen --seconds 300
$ ./scripts/faults --report                     # writes this page
```
"""
COLUMNS = (
    "fault", "injected", "messages", "lost", "ran again", "doubled beyond the promise",
    "out of order", "early commits", "went on after: median, worst",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What one attack came to."""

    attack: Attack
    verdict: Verdict

    def row(self) -> Sequence[str]:
        found = self.verdict
        counts = (
            len(found.lost),
            found.again,
            len(found.doubled),
            len(found.disordered),
            len(found.early),
        )
        times = f"{median(found.seconds):.1f}, {max(found.seconds):.1f} s" if found.seconds else ""
        return (
            self.attack.what,
            f"{found.faults:,}",
            f"{found.messages:,}",
            *map(str, counts),
            times,
        )

    def json(self) -> dict[str, object]:
        return {
            "name": self.attack.name,
            "fault": self.attack.what,
            "good": self.verdict.good,
            **asdict(self.verdict),
        }


def table(found: Iterable[Found]) -> Iterator[str]:
    yield _line(COLUMNS)
    yield "|---|" + "---:|" * (len(COLUMNS) - 1)
    for one in found:
        yield _line(one.row())


def page(found: Sequence[Found], seconds: float) -> str:
    buried = sum(one.verdict.buried for one in found)
    about = f"{machine()} {datetime.now(UTC):%d %B %Y}, {seconds:g} seconds each.\n\n"
    note = (
        f"\n{buried} jobs are among the dead letters because [their workers died three"
        " times](guarantees.md#the-worker-is-killed).\n"
        if buried
        else ""
    )
    return HEAD + about + "\n".join(table(found)) + "\n" + note + TAIL


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"
        f" {platform.release()}, Python {platform.python_version()}, busline {version('busline')},"
        f" Redis {redis.release()}, Kafka {kafka.release()} ({NODES} brokers), SQLite"
        f" {sqlite3.sqlite_version}."
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
