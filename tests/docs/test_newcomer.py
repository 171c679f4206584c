"""The tutorial in an empty virtual environment: from a copy of the repository to the same file on Kafka and Redis."""

import asyncio
import re
import shutil
import venv
from collections.abc import Iterator
from pathlib import Path
from shlex import split

import pytest

from tests.docs.test_tutorial import BLOCK, PAGE, ROOT, Reader
from tests.servers.kafka import Kafka, no_topics
from tests.servers.redis import Server, redis, shared

__all__ = ["redis", "shared"]
COPIED = ("src", "pyproject.toml", "README.md", "LICENSE")


class Newcomer(Reader):
    """A reader who has nothing yet. Types every command, and counts them."""

    def __init__(self, folder: Path, servers: dict[str, str]) -> None:
        super().__init__(folder, folder / ".venv" / "bin" / "python", "")
        self.servers, self.commands = servers, 0

    def type(self, line: str) -> None:
        self.commands += 1
        if line.startswith("python3 -m venv "):
            venv.create(self.folder / ".venv", with_pip=True)
        elif line.startswith("export "):
            self.stop()
            self.environment |= self.servers
        elif line.startswith("pip install "):
            said = self.run("pip", "install", "-q", "--disable-pip-version-check", *split(line)[2:])
            assert "ERROR" not in said, said
        elif not line.startswith(". "):
            super().type(line)


@pytest.fixture
def newcomer(tmp_path: Path, kafka: Kafka, redis: Server) -> Iterator[Newcomer]:
    asyncio.run(no_topics(kafka.server))
    copy = tmp_path / "busline"
    copy.mkdir()
    for name in COPIED:
        found = ROOT / name
        shutil.copytree(found, copy / name, ignore=shutil.ignore_patterns("__pycache__")) if found.is_dir() else shutil.copy(found, copy)
    newcomer = Newcomer(tmp_path, {"BUSLINE_STREAMS": kafka.url, "BUSLINE_JOBS": redis.url})
    yield newcomer
    if newcomer.worker is not None:
        newcomer.worker.kill()
        newcomer.worker.wait()


@pytest.mark.server
@pytest.mark.timeout(300)
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
    assert told is not None and newcomer.commands == int(told[1])
