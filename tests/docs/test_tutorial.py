"""The tutorial does what it says: its files are written, its commands run, its outputs compared, in its order."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import split

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (\S+)\n")
FOREIGN = ("BUSLINE_", "KUBERNETES_", "ECS_", "K_SERVICE")
FOR_EVER = (["busline", "run", "shop:app"], ["busline", "run", "shop:app", "--create-topics"])


class Reader:
    """Somebody who does what the page says, with a terminal for the worker and one for the rest."""

    def __init__(self, folder: Path, python: Path, sources: str) -> None:
        self.folder, self.python = folder, str(python)
        self.worker: subprocess.Popen[bytes] | None = None
        self.said = ""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self.environment = {**kept, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"}

    def write(self, text: str) -> None:
        named = FILE.match(text)
        assert named is not None, "every Python block of the tutorial is a file"
        self.stop()
        (self.folder / named[1]).write_text(text)

    def type(self, line: str) -> None:
        words = split(line)
        if words in FOR_EVER:
            self.worker = subprocess.Popen([self.python, "-m", *words], cwd=self.folder, env=self.environment, stderr=subprocess.DEVNULL)
        elif words[0] in ("busline", "pytest"):
            self.said = self.run(*words)
        else:
            assert words[:2] == ["pip", "install"], line

    def run(self, *words: str) -> str:
        """What it prints; an error's text where there is nothing else."""
        done = subprocess.run([self.python, "-m", *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or not done.stdout, done.stdout + done.stderr
        return done.stdout or done.stderr

    def compare(self, text: str) -> None:
        expected = "".join(".*" if part == "..." else re.escape(part) for part in re.split(r"(\.\.\.)", text.strip()))
        assert re.fullmatch(expected, self.said.strip()), self.said

    def stop(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.send_signal(signal.SIGINT)
            assert worker.wait(30) == 0


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path, Path(sys.executable), str(ROOT / "src"))
    yield reader
    if reader.worker is not None:
        reader.worker.kill()
        reader.worker.wait()


def test_the_tutorial_does_what_it_says(reader: Reader) -> None:
    kinds = set()
    for kind, text in BLOCK.findall(PAGE.read_text()):
        kinds.add(kind)
        if kind == "python":
            reader.write(text)
        elif kind == "sh":
            for line in text.splitlines():
                reader.type(line)
        elif kind == "text":
            reader.compare(text)

    assert kinds == {"python", "sh", "text", "console"}
    assert "2 passed" in reader.said
    assert json.loads(reader.run("busline", "inspect", "shop:app", "--json"))["dead"] == {}
    assert (reader.folder / ".busline" / "bus.db").exists()
