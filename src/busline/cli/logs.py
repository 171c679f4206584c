"""What `run` logs, and how: only where the user has not said it."""

import json
import logging
from datetime import UTC, datetime

from busline.logs import FIELDS, Handling

LEVELS = ("debug", "info", "warning", "error")
CLIENT = logging.getLogger("aiokafka")  # tells each try, and what busline says in its own words
FORMATS = ("text", "json")


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what was being handled, and error with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name in FIELDS if (value := getattr(record, name)) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class Text(logging.Formatter):
    """For people; behind what a function logs stands what it was handling."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        handler = record.__dict__["handler"]
        if handler is None or record.name == "busline":  # which says it in its own words
            return text
        return f"{text} [{handler} {record.__dict__['position'] or record.__dict__['message_id']}, attempt {record.__dict__['attempt']}]"


def quiet() -> None:
    """Before the user's module, which may set it otherwise."""
    CLIENT.setLevel(logging.CRITICAL)


def configure(level: str, form: str) -> None:
    """Logs to stderr. Does nothing where the root logger has a handler; disables nothing."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.addFilter(Handling())
    handler.setFormatter(Json() if form == "json" else Text("%(asctime)s %(levelname)-7s %(message)s"))
    root.addHandler(handler)
    if level == "debug":
        CLIENT.setLevel(logging.NOTSET)
    root.setLevel(level.upper())
