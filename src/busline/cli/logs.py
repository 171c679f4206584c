"""What `run` logs, and how: only where the user has not said it."""

import json
import logging
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning", "error")
CLIENT = logging.getLogger("aiokafka")  # tells each try, and what busline says in its own words
FORMATS = ("text", "json")


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and error with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def quiet() -> None:
    """Before the user's module, which may set it otherwise."""
    CLIENT.setLevel(logging.CRITICAL)


def configure(level: str, form: str) -> None:
    """Logs to stderr. Does nothing where the root logger has a handler; disables nothing."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    root.addHandler(handler)
    if level == "debug":
        CLIENT.setLevel(logging.NOTSET)
    root.setLevel(level.upper())
