"""The tables of the newest layout, and the one place that makes them. `steps.py` leads there from
older ones. Times are seconds since 1970, given by the caller."""

import sqlite3

APPLICATION = 0x62757321  # PRAGMA application_id: "bus!"

WAITING, DELAYED, RETRYING, RUNNING, ASIDE = range(5)

TABLES = """
CREATE TABLE worker(n INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL) STRICT;
CREATE TABLE knows(n INTEGER NOT NULL, queue TEXT NOT NULL, task TEXT NOT NULL,
    PRIMARY KEY(queue, task, n)) STRICT, WITHOUT ROWID;
CREATE INDEX knows_n ON knows(n);

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
CREATE INDEX job_aside ON job(queue, task, seq) WHERE state = 4;
CREATE INDEX job_strange ON job(queue, ready) WHERE state = 4;
CREATE UNIQUE INDEX job_uniq ON job(uniq) WHERE uniq IS NOT NULL;
CREATE TABLE known(id TEXT PRIMARY KEY, until REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX known_until ON known(until);

CREATE TABLE dead(seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, address TEXT NOT NULL,
    handler TEXT NOT NULL, position TEXT, key BLOB, body BLOB, headers BLOB NOT NULL,
    reason TEXT NOT NULL, error_type TEXT, error TEXT, attempts INTEGER NOT NULL,
    died_at REAL NOT NULL, at REAL NOT NULL, queue TEXT NOT NULL, task TEXT NOT NULL, uniq TEXT,
    remember REAL NOT NULL, options TEXT, details BLOB) STRICT;
CREATE INDEX dead_served ON dead(queue, address, seq, handler);
CREATE TABLE fact(key TEXT PRIMARY KEY, value BLOB NOT NULL, until REAL NOT NULL) STRICT,
    WITHOUT ROWID;
CREATE INDEX fact_until ON fact(until);
CREATE TABLE count(handler TEXT PRIMARY KEY, handled INTEGER NOT NULL, retried INTEGER NOT NULL,
    dead INTEGER NOT NULL, skipped INTEGER NOT NULL, refused INTEGER NOT NULL,
    gaps INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


def layout(db: sqlite3.Connection) -> int:
    """Which layout the file has; 0 for an empty one."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def create(db: sqlite3.Connection) -> None:
    """Makes the tables of the newest layout, inside the caller's transaction, which also writes its
    number."""
    execute(db, TABLES)
    db.execute(f"PRAGMA application_id = {APPLICATION}")


def execute(db: sqlite3.Connection, statements: str) -> None:
    """Several statements, inside the caller's transaction."""
    for statement in statements.split(";"):
        if statement.strip():
            db.execute(statement)
