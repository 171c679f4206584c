"""The tutorial in an empty virtual environment: from a clone to the same file on Kafka and
Redis."""

import asyncio
import re
import shutil
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_tutorial import BLOCK, PAGE, ROOT, Reader
from tests.servers.kafka import Kafka, no_topics
from tests.servers.redis import Server, redis, shared

__all__ = ["redis", "shared"]
UNTRACKED = shutil.ignore_patterns(
    ".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines())
)


class Newcomer(Reader):
    """A reader who has nothing but a clone yet. Types every command, and counts them."""

    def __init__(self, folder: Path, servers: dict[str, str]) -> None:
        venv.create(folder / ".venv")
        super().__init__(folder, folder / ".venv")
        self.servers, self.typed = servers, 0
        shutil.copytree(ROOT, folder / "busline", ignore=UNTRACKED)

    def type(self, line: str) -> None:
        self.typed += 1
        if line.startswith("export "):
            self.stop()
            self.environment |= self.servers
        elif not line.startswith((". ", "python3 -m venv ")):  # it has its environment
            super().type(line)


@pytest.fixture
def newcomer(tmp_path: Path, kafka: Kafka, redis: Server) -> Iterator[Newcomer]:
    asyncio.run(no_topics(kafka.server))
    newcomer = Newcomer(tmp_path, {"BUSLINE_STREAMS": kafka.url, "BUSLINE_JOBS": redis.url})
    yield newcomer
    newcomer.close()


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(600)
def test_a_newcomer_gets_to_an_own_handler_and_to_servers(newcomer: Newcomer) -> None:
    page = PAGE.read_text()
    for kind, text in BLOCK.findall(page):
        if kind == "python":
            newcomer.write(text)
        elif kind in ("sh", "console"):
            for line in text.splitlines():
                newcomer.type(line.removeprefix("$ "))

    assert newcomer.said.strip() == '"sent to di@example.org"'
    newcomer.stop()
    told = re.search(r"empty virtual environment: (\d+) commands", page)
    assert told is not None and newcomer.typed == int(told[1])
