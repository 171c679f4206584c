"""Projects in a folder of their own, and the command in this process or in another."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner, Result

from busline.cli import cli

SOURCES = Path(__file__).parents[2] / "src"
SHOP = """
    from pydantic import BaseModel

    from busline import App, Retry, Topic


    class Order(BaseModel):
        id: str
        cents: int


    orders = Topic("orders", Order, key="id")
    bills = Topic("bills", Order)
    audit = Topic("audit", Order)
    app = App("shop", publishes=[audit], retry=Retry(1))


    @app.subscriber(orders, publish=bills)
    async def bill(order: Order) -> Order:
        if order.cents < 0:
            raise ValueError("negative")
        return order


    @app.task
    async def add(a: int, b: int = 1) -> int:
        return a + b


    @app.task
    async def fail(text: str) -> int:
        raise ValueError(text)


    @app.task(queue="mail")
    async def send(to: str) -> None:
        print("sent to", to, flush=True)
"""


class Project:
    """A folder with an App, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        (folder / "pyproject.toml").touch()

    def write(self, name: str, text: str = "") -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    def call(self, *words: str, **options: str) -> Result:
        """In this process."""
        result = CliRunner().invoke(cli, words, **options)  # type: ignore[arg-type]  # input= is all there is
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def command(self, *words: str, installed: bool = False) -> list[str]:
        if not installed:
            return [sys.executable, "-m", "busline", *words]
        script = self.folder.parent / "bin" / "busline"
        script.parent.mkdir(exist_ok=True)
        script.write_text("from busline.cli import main\nmain()\n")
        return [sys.executable, str(script), *words]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("BUSLINE_")
        }
        return {
            **kept,
            "PYTHONPATH": str(SOURCES),
            "BUSLINE_HOME": str(self.folder / ".busline"),
            **(extra or {}),
        }

    def run(
        self,
        *words: str,
        at: str = ".",
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        installed: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        """In another process, until it ends."""
        return subprocess.run(
            self.command(*words, installed=installed),
            cwd=self.folder / at,
            env=self.environment(env),
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """In another process, that goes on. Its output and its log are one stream."""
        process = subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Of whatever a failing test has left."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """What it says, up to the line that holds the text."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"'{text}' was never said, but: {said[-2000:]}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("BUSLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BUSLINE_HOME", str(folder / ".busline"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    made = Project(folder)
    yield made
    made.end()
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def shop(project: Project) -> Project:
    """With `shop:app`, and that as its default."""
    project.write("shop.py", SHOP)
    project.write("pyproject.toml", '[tool.busline]\napp = "shop:app"\n')
    return project
