"""Which engine an App uses: named by its constructor, else by the environment, else the embedded file."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from busline.core.clock import Clock, SystemClock
from busline.core.errors import ConfigError, Invalid, wrong
from busline.core.ports import Transport

log = logging.getLogger("busline")
MANAGED = {"KUBERNETES_SERVICE_HOST": "Kubernetes", "ECS_CONTAINER_METADATA_URI_V4": "ECS", "K_SERVICE": "Cloud Run"}


@dataclass(frozen=True, slots=True)
class Named:
    """An engine's URL and who named it."""

    url: str
    by: str

    def __str__(self) -> str:
        return f"{shown(self.url)} ({self.by})"


def named(given: str | None, variable: str, module_file: str | None) -> Named:
    """The constructor's word, else the environment's, else the embedded file of the project."""
    if given is not None:
        return Named(given, "named by the App")
    if url := os.environ.get(variable):
        return Named(url, f"named by {variable}")
    return Named(f"sqlite:///{implicit_file(module_file)}", "embedded")


def implicit_file(module_file: str | None) -> Path:
    """`.busline/bus.db` in BUSLINE_HOME, beside the pyproject.toml above the App's module, or in the module's folder.
    Raises Invalid where a file on this machine's disk would be lost with the machine."""
    for variable, what in MANAGED.items():
        if variable in os.environ:
            raise Invalid(wrong("engine", f"a named one under {what}", "none", "Set BUSLINE_STREAMS and BUSLINE_JOBS, to sqlite:////path if you mean a file."))
    if os.environ.get("BUSLINE_ENV") == "production":
        raise Invalid(wrong("engine", "a named one with BUSLINE_ENV=production", "none", "Set BUSLINE_STREAMS and BUSLINE_JOBS."))
    if home := os.environ.get("BUSLINE_HOME"):
        return Path(home).absolute() / "bus.db"
    folder = (Path(module_file) if module_file else Path.cwd() / "_").absolute().parent
    project = next((one for one in (folder, *folder.parents) if (one / "pyproject.toml").exists()), folder)
    return project / ".busline" / "bus.db"


def warn_in_container(engines: Sequence[Named | None]) -> None:
    """Says once, at the start of a run, that an embedded file does not outlive its container."""
    embedded = any(one is not None and one.by == "embedded" for one in engines)
    if embedded and "BUSLINE_HOME" not in os.environ and Path("/.dockerenv").exists():
        log.warning("the embedded engine's file lives in this container and is lost with it: set BUSLINE_HOME to a volume")


def shown(url: str) -> str:
    """A URL without its secrets."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2] if '@' in rest else rest}"


def transport(engine: Named, clock: Clock | None = None) -> Transport:
    """A transport for a URL, not yet open; its client is imported here. Raises Invalid for a URL that names none."""
    parts = urlsplit(engine.url)
    if parts.scheme == "memory":
        from busline.transports.memory import MemoryTransport

        return MemoryTransport(clock or SystemClock())
    if parts.scheme == "sqlite":
        return _sqlite(engine, clock or SystemClock())
    raise Invalid(wrong(shown(engine.url), "sqlite:///relative, sqlite:////absolute or memory://", f"'{parts.scheme}://'", f"Correct the URL {engine.by}."))


def _sqlite(engine: Named, clock: Clock) -> Transport:
    from busline.transports.sqlite import SqliteTransport

    location, _, query = engine.url.removeprefix("sqlite://").partition("?")
    if not location.startswith("/") or len(location) < 2:
        raise Invalid(wrong(shown(engine.url), "sqlite:///relative or sqlite:////absolute", "no path", "Write three slashes and a path."))
    if query not in ("", "sync=normal", "sync=full"):
        raise Invalid(wrong(shown(engine.url), "sync=normal or sync=full after the `?`", query, "Leave it out for normal."))
    path = Path(unquote(location[1:])).absolute()
    if engine.by == "embedded":
        _own_folder(path.parent)
    return SqliteTransport(path, sync="full" if query == "sync=full" else "normal", clock=clock)


def _own_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise ConfigError([wrong(folder, "a folder that can be written", error.strerror or str(error), "Set BUSLINE_HOME to one that can.")]) from error
