"""The tables of the file, and the one place that makes them. Times are seconds since 1970, given by
the caller."""

import sqlite3

APPLICATION = 0x62757321  # PRAGMA application_id: "bus!"
LAYOUT = 1  # PRAGMA user_version: a file with a higher one was written by a newer busline

WAITING, DELAYED, RETRYING, RUNNING, ASIDE = range(5)

TABLES = """
CREATE TABLE worker(n INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL) STRICT;

CREATE TABLE topic(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    parts INTEGER NOT NULL) STRICT;
CREATE TABLE log(seq INTEGER PRIMARY KEY, topic INTEGER NOT NULL, part INTEGER NOT NULL,
    id TEXT NOT NULL, key BLOB, headers BLOB NOT NULL, at REAL NOT NULL, body BLOB) STRICT;
CREATE INDEX log_part ON log(topic, part, seq);
CREATE TABLE grp(id INTEGER PRIMARY KEY, name TEXT NOT NULL, topic INTEGER NOT NULL, owner INTEGER,
    UNIQUE(name, topic)) STRICT;
CREATE TABLE lane(grp INTEGER NOT NULL, part INTEGER NOT NULL, low INTEGER NOT NULL,
    PRIMARY KEY(grp, part)) STRICT, WITHOUT ROWID;
CREATE TABLE done(grp INTEGER NOT NULL, part INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY(grp, part, seq)) STRICT, WITHOUT ROWID;

CREATE TABLE job(seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL,
    state INTEGER NOT NULL, due REAL, ready REAL, owner INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, uniq TEXT,
    task TEXT NOT NULL, key BLOB, headers BLOB NOT NULL, at REAL NOT NULL, remember REAL NOT NULL,
    options TEXT, origin TEXT, body BLOB) STRICT;
CREATE INDEX job_ready ON job(queue, seq) WHERE state = 0;
CREATE INDEX job_due ON job(ready, queue, state) WHERE state IN (1, 2);
CREATE INDEX job_held ON job(owner) WHERE state = 3;
CREATE INDEX job_suspect ON job(seq, queue, state, owner) WHERE deaths >= 2;
CREATE UNIQUE INDEX job_uniq ON job(uniq) WHERE uniq IS NOT NULL;
CREATE TABLE known(id TEXT PRIMARY KEY, until REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX known_until ON known(until);

CREATE TABLE dead(seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, address TEXT NOT NULL,
    handler TEXT NOT NULL, position TEXT, key BLOB, body BLOB, headers BLOB NOT NULL,
    reason TEXT NOT NULL, error_type TEXT, error TEXT, attempts INTEGER NOT NULL,
    died_at REAL NOT NULL, at REAL NOT NULL, queue TEXT NOT NULL, task TEXT NOT NULL, uniq TEXT,
    remember REAL NOT NULL, options TEXT, details BLOB) STRICT;
CREATE TABLE fact(key TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL NOT NULL) STRICT,
    WITHOUT ROWID;
CREATE INDEX fact_until ON fact(until);
CREATE TABLE count(handler TEXT PRIMARY KEY, handled INTEGER NOT NULL, retried INTEGER NOT NULL,
    dead INTEGER NOT NULL, skipped INTEGER NOT NULL, refused INTEGER NOT NULL,
    gaps INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

LATER = """
CREATE INDEX IF NOT EXISTS job_aside ON job(queue, task, seq) WHERE state = 4;
CREATE INDEX IF NOT EXISTS job_strange ON job(queue, ready) WHERE state = 4;
CREATE TABLE IF NOT EXISTS knows(n INTEGER NOT NULL, queue TEXT NOT NULL, task TEXT NOT NULL,
    PRIMARY KEY(queue, task, n)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS knows_n ON knows(n);
CREATE INDEX IF NOT EXISTS dead_served ON dead(queue, address, seq, handler);
"""  # what a file of this layout may lack: it is made whenever one is opened


def layout(db: sqlite3.Connection) -> int:
    """Which layout the file has; 0 for an empty one."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def create(db: sqlite3.Connection) -> None:
    """Makes the tables, inside the caller's transaction, which also writes the layout's number."""
    _execute(db, TABLES)
    db.execute(f"PRAGMA application_id = {APPLICATION}")


def complete(db: sqlite3.Connection) -> None:
    """Makes what a file of an older busline lacks, in the same transaction."""
    _execute(db, LATER)
    if not db.execute("SELECT 1 FROM pragma_table_info('dead') WHERE name = 'details'").fetchone():
        db.execute("ALTER TABLE dead ADD COLUMN details BLOB")


def _execute(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        if statement.strip():
            db.execute(statement)
