"""Which engines an App uses: named by its constructor, else by the environment, else the embedded
file."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from busline.core.clock import Clock
from busline.core.errors import Invalid, wrong
from busline.core.ports import Transport
from busline.engine import Embedded, Engine, engine
from busline.runtime.engines import Engines

log = logging.getLogger("busline")
MANAGED = {
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "ECS_CONTAINER_METADATA_URI_V4": "ECS",
    "K_SERVICE": "Cloud Run",
}
STREAMS, JOBS = "BUSLINE_STREAMS", "BUSLINE_JOBS"


@dataclass(frozen=True, slots=True)
class Named:
    """An engine and who named it."""

    engine: Engine
    by: str

    def __str__(self) -> str:
        return f"{self.engine} ({self.by})"


def given(named: str | Engine | None, variable: str) -> Named | None:
    """The constructor's word, else the environment's."""
    if named is not None:
        return Named(named if isinstance(named, Engine) else engine(named), "named by the App")
    if url := os.environ.get(variable):
        return Named(engine(url), f"named by {variable}")
    return None


def embedded(module_file: str | None) -> Named:
    return Named(Embedded(implicit_file(module_file)), "embedded")


def implicit_file(module_file: str | None) -> Path:
    """`.busline/bus.db` in BUSLINE_HOME, beside the pyproject.toml above the App's module, or in
    the module's folder. Raises Invalid where a file on this machine's disk would be lost with the
    machine."""
    for variable, what in MANAGED.items():
        if variable in os.environ:
            raise Invalid(
                wrong(
                    "engine",
                    f"a named one under {what}",
                    "none",
                    "Set BUSLINE_STREAMS and BUSLINE_JOBS, to sqlite:////path if you mean a file.",
                )
            )
    if os.environ.get("BUSLINE_ENV") == "production":
        raise Invalid(
            wrong(
                "engine",
                "a named one with BUSLINE_ENV=production",
                "none",
                "Set BUSLINE_STREAMS and BUSLINE_JOBS.",
            )
        )
    if home := os.environ.get("BUSLINE_HOME"):
        return Path(home).absolute() / "bus.db"
    folder = (Path(module_file) if module_file else Path.cwd() / "_").absolute().parent
    project = next(
        (one for one in (folder, *folder.parents) if (one / "pyproject.toml").exists()), folder
    )
    return project / ".busline" / "bus.db"


@dataclass(frozen=True, slots=True)
class Names:
    """The engines of one App; None: it needs none."""

    streams: Named | None
    jobs: Named | None

    def open(self, clock: Clock, create_topics: bool) -> Engines:
        """Their transports, closed: the same one twice for the same engine. Raises Invalid and
        ConfigError for what cannot be one."""
        known: dict[str, Transport] = {}
        return Engines(
            *(_transport(one, known, clock, create_topics) for one in (self.streams, self.jobs))
        )

    def problems(self) -> Iterator[str]:
        """What these engines cannot be used for."""
        if self.streams is not None and not self.streams.engine.topics:
            yield wrong(
                "streams",
                "an engine with topics: memory, sqlite or kafka",
                f"{self.streams}",
                f"Correct {STREAMS} or App(streams=).",
            )
        if self.jobs is not None and not self.jobs.engine.queues:
            yield wrong(
                "jobs",
                "an engine with queues: memory, sqlite or redis",
                f"{self.jobs}",
                f"Correct {JOBS} or App(jobs=).",
            )
        yield from _half_named("jobs", JOBS, self.streams, self.jobs)
        yield from _half_named("streams", STREAMS, self.jobs, self.streams)


def _transport(
    named: Named | None, known: dict[str, Transport], clock: Clock, create_topics: bool
) -> Transport | None:
    if named is None:
        return None
    name = str(named.engine)
    if name not in known:
        engine = named.engine.creating_topics() if create_topics else named.engine
        known[name] = engine.open(clock)
    return known[name]


def _half_named(what: str, variable: str, one: Named | None, other: Named | None) -> Iterator[str]:
    """A server for the one half and a file for the other is seldom meant: the file is not where the
    server is."""
    if (
        one is not None
        and other is not None
        and one.engine.server
        and isinstance(other.engine, Embedded)
    ):
        remedy = f"Set {variable} or App({what}=): sqlite:///path is a name too."
        yield wrong(what, f"a named engine beside {one}", "none", remedy)


def names(
    streams: str | Engine | None,
    jobs: str | Engine | None,
    needs: tuple[bool, bool],
    module_file: str | None,
) -> Names:
    """The engines of an App that needs one for streams, one for jobs, or both. Jobs of an App that
    has only subscribers are the dead letters that run again: where its streams carry no queues they
    have an engine only if one is named."""
    of_streams = (given(streams, STREAMS) or embedded(module_file)) if needs[0] else None
    named = given(jobs, JOBS)
    if needs[1]:
        return Names(of_streams, named or embedded(module_file))
    return Names(
        of_streams, named if of_streams is not None and not of_streams.engine.queues else None
    )


def warn_in_container(names: Sequence[Named | None]) -> None:
    """Says once, at the start of a run, that an embedded file does not outlive its container."""
    embedded = any(one is not None and isinstance(one.engine, Embedded) for one in names)
    if embedded and "BUSLINE_HOME" not in os.environ and Path("/.dockerenv").exists():
        log.warning(
            "the embedded engine's file lives in this container and is lost with it: set"
            " BUSLINE_HOME to a volume"
        )
