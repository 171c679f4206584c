"""What `run` logs, and how: only where the user has not said it."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from busline.core.causes import described
from busline.core.clock import moment
from busline.logs import handled

LEVELS = ("debug", "info", "warning", "error")
CLIENT = logging.getLogger("aiokafka")  # which the engine keeps quiet otherwise
FORMATS = ("text", "json")
# what is no `extra` of anybody
OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
COLOURS = {
    logging.DEBUG: "2",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message; what was being handled; the error; and
    what came as `extra`.

    An `extra` keeps its name: what busline says under the same one is then called `busline.NAME`.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in (handled() or {}).items() if value is not None}
        entry |= self._error(record)
        extra = {name: value for name, value in record.__dict__.items() if name not in OWN}
        own = {
            f"busline.{name}" if extra.get(name, value) != value else name: value
            for name, value in entry.items()
        }
        return json.dumps({**own, **{name: _plain(value) for name, value in extra.items()}})

    def _error(self, record: logging.LogRecord) -> dict[str, object]:
        if not record.exc_info or record.exc_info[1] is None:
            return {}
        kind, text = described(record.exc_info[1])
        return {
            "error_type": kind,
            "error": text,
            "traceback": self.formatException(record.exc_info),
        }


def _plain(value: Any) -> Any:
    """Whatever a user has put into `extra`, as JSON takes it."""
    try:
        return json.loads(json.dumps(value, default=str))
    except Exception:  # its own text cannot be made: a log call never fails
        return f"<{type(value).__name__}>"


class Text(logging.Formatter):
    """For people; behind what a function logs stands what it was handling. `coloured`: the level,
    as terminals show it."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._coloured = coloured

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"{moment(record.created):%Y-%m-%d %H:%M:%S}.{record.msecs:03.0f} UTC"

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        if self._coloured:
            level = f"{record.levelname:7}"
            text = text.replace(level, f"\x1b[{COLOURS.get(record.levelno, '0')}m{level}\x1b[0m", 1)
        found = handled()
        if found is None or record.name == "busline":  # which says it in its own words
            return text
        return (
            f"{text} [{found['handler']} {found['position'] or found['message_id']}, attempt"
            f" {found['attempt']}]"
        )


def is_coloured(stream: TextIO) -> bool:
    """On a terminal that shows colours, unless NO_COLOR is set to anything."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def configure(level: str, form: str) -> None:
    """Logs to stderr. Does nothing where the root logger has a handler; disables nothing."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text(coloured=is_coloured(sys.stderr)))
    root.addHandler(handler)
    if level == "debug":
        CLIENT.setLevel(logging.DEBUG)
    root.setLevel(level.upper())
