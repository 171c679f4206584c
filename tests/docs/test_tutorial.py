"""The tutorial does what it says, from the wheel, which is the sdist's as well: its files are
written, its commands run, its outputs compared."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from shlex import split
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (\S+)\n")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
PATIENCE = 240  # seconds for a command: an index may be slow
FOREIGN = ("BUSLINE_", "KUBERNETES_", "ECS_", "K_SERVICE")
FOR_EVER = (["busline", "run", "shop:app"], ["busline", "run", "shop:app", "--create-topics"])


class Reader:
    """Somebody who does what the page says, with a terminal for the worker and one for the rest."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.commands = folder, environment / "bin"
        self.worker: subprocess.Popen[bytes] | None = None
        self.said = ""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self.environment = {**kept, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}

    def write(self, text: str) -> None:
        named = FILE.match(text)
        assert named is not None, "every Python block of the tutorial is a file"
        self.stop()
        (self.folder / named[1]).write_text(text)

    def type(self, line: str) -> None:
        words = split(line)
        if words in FOR_EVER:
            self.worker = subprocess.Popen(
                [self.commands / words[0], *words[1:]],
                cwd=self.folder,
                env=self.environment,
                stderr=subprocess.DEVNULL,
            )
        elif words[0] == "busline":
            self.said = self.run(str(self.commands / "busline"), *words[1:])
        elif words[0] == "pytest":
            self.said = self.run(str(self.commands / "python"), "-m", *words)
        else:
            assert words[:2] == ["pip", "install"], line
            self.pip("install", *words[2:])

    def pip(self, *words: str) -> None:
        said = self.run(*PIP, "--python", str(self.commands / "python"), *words, "-q")
        assert "ERROR" not in said, said

    def run(self, *words: str) -> str:
        """What it prints; an error's text where there is nothing else."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0 or not done.stdout, done.stdout + done.stderr
        return done.stdout or done.stderr

    def compare(self, text: str) -> None:
        expected = "".join(
            ".*" if part == "..." else re.escape(part)
            for part in re.split(r"(\.\.\.)", text.strip())
        )
        assert re.fullmatch(expected, self.said.strip()), self.said

    def stop(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.send_signal(signal.SIGINT)
            assert worker.wait(30) == 0

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, the wheel, and the wheel that comes out of the sdist."""
    dist = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", dist],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (sdist,) = dist.glob("*.tar.gz")
    command = [
        *PIP,
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(dist / "sdist"),
        str(sdist),
    ]
    subprocess.run(command, capture_output=True, check=True)
    return dist


@pytest.fixture
def reader(dist: Path, tmp_path: Path) -> Iterator[Reader]:
    """With the wheel in an environment that has all else from this one: what else it needs is the
    newcomer's to install."""
    (wheel,) = dist.glob("pybusline-*.whl")
    environment = tmp_path / "environment"
    venv.create(environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    reader = Reader(tmp_path, environment)
    reader.pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    yield reader
    reader.close()


def contents(folder: Path) -> dict[str, bytes]:
    """What the wheel in it installs."""
    (wheel,) = folder.glob("pybusline-*.whl")
    with ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


@pytest.mark.slow
def test_the_sdist_gives_the_same_wheel(dist: Path) -> None:
    assert contents(dist) == contents(dist / "sdist")


@pytest.mark.slow
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
    reader.type("busline inspect shop:app --json")
    assert json.loads(reader.said)["dead"] == {}
    assert (reader.folder / ".busline" / "bus.db").exists()
