"""Real servers for the tests: started when a test first asks, ended by their process ids."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busline import Kafka, Memory, Redis, Sqlite
from busline.engine import Engine


@dataclass
class Started:
    """Whether the test that runs now is one that needs a server; so is what is run by hand."""

    allowed: bool = True

    def check(self) -> None:
        assert self.allowed, (
            "This test starts a server: mark it with @pytest.mark.server, for `./scripts/test"
            " --embedded` leaves such out."
        )


started = Started()


@dataclass(frozen=True)
class Servers:
    """The engines by name. `fixture` starts a server, or finds the one that runs."""

    fixture: Callable[[str], Any]

    def pair(self, names: str, file: Path) -> tuple[Engine, Engine]:
        """The engines of `streams+jobs`."""
        streams, jobs = names.split("+")
        return self._engine(streams, file), self._engine(jobs, file)

    def _engine(self, name: str, file: Path) -> Engine:
        if name == "memory":
            return Memory()
        if name == "sqlite":
            return Sqlite(file)
        server = self.fixture(name)
        return Kafka(server.server, create_topics=True) if name == "kafka" else Redis(server.url)
