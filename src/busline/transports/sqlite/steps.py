"""The ladder of layouts: how a file that an older busline made becomes one of today.

Each step changes the tables of one layout into those of the next. Whoever opens the file takes all
that are missing, in the one transaction that also writes the number: a crash leaves the file as it
was. A process that still has the older layout open sees the number in its next write, and writes
nothing more.
"""

import sqlite3
from collections.abc import Callable, Sequence

from busline.transports.sqlite.schema import create, execute, layout

Step = Callable[[sqlite3.Connection], None]


def _strangers_and_causes(db: sqlite3.Connection) -> None:
    """Jobs whose task nobody knows wait aside; letters tell the causes of their error. Builds
    before this number existed made some of it in files of layout 1."""
    execute(
        db,
        """
        CREATE INDEX IF NOT EXISTS job_aside ON job(queue, task, seq) WHERE state = 4;
        CREATE INDEX IF NOT EXISTS job_strange ON job(queue, ready) WHERE state = 4;
        CREATE TABLE IF NOT EXISTS knows(n INTEGER NOT NULL, queue TEXT NOT NULL,
            task TEXT NOT NULL, PRIMARY KEY(queue, task, n)) STRICT, WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS knows_n ON knows(n);
        CREATE INDEX IF NOT EXISTS dead_served ON dead(queue, address, seq, handler);
        """,
    )
    if not db.execute("SELECT 1 FROM pragma_table_info('dead') WHERE name = 'details'").fetchone():
        db.execute("ALTER TABLE dead ADD COLUMN details BLOB")


STEPS: Sequence[Step] = (_strangers_and_causes,)  # the first leads from layout 1 to 2
LAYOUT = len(STEPS) + 1


def climb(db: sqlite3.Connection, steps: Sequence[Step] = STEPS) -> None:
    """Brings a file of this layout or an older one to the newest, inside the caller's transaction.
    An empty one is made whole."""
    found = layout(db)
    if found == 0:
        create(db)
    else:
        for step in steps[found - 1 :]:
            step(db)
    if found != len(steps) + 1:
        db.execute(f"PRAGMA user_version = {len(steps) + 1}")
