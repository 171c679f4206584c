"""The pieces of programs and the commands of the pages, in the surroundings that the pages speak
of."""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from busline import App, Queue, Retry, Topic
from tests.docs.test_pages import DOCS, ROOT, blocks

SHELL = f"""set -e
export PYTHONPATH={ROOT / "src"}
busline() {{
  if [ "$*" = "run shop:app" ]; then set -- "$@" --until-idle; fi
  {sys.executable} -m busline "$@"
}}
python() {{ {sys.executable} "$@"; }}
pip() {{ [ "$1" = install ]; }}
generate() {{ cat orders.jsonl; }}
"""
MINE = """from functools import cache

from busline.transports.memory import MemoryTransport

MyTransport = cache(MemoryTransport)  # one for each clock, which stands for one engine
"""
FRAGMENTS = [
    (name, number)
    for name in ("jobs.md", "sends.md")
    for number in range(len(blocks(DOCS / name, "python")))
]
ANSWERS = re.compile(
    r"^```sh\n(?:(?!```).*\n)+```\n\n```text\n((?:(?!```).*\n)+)```$", re.MULTILINE
)  # what stands right below commands
PAGES = [
    page
    for page in sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
    if page.name != "tutorial.md" and blocks(page, "sh")
]


class Order(BaseModel):
    id: str
    email: str
    cents: int


class Alert(BaseModel):
    text: str


def surroundings() -> dict[str, Any]:
    """An App like that of the pages, with the names that they use."""
    app, orders = (
        App(
            "shop",
            streams="memory://",
            jobs="memory://",
            publishes=[alerts := Topic("alerts", Alert)],
        ),
        Topic("orders", Order),
    )

    @app.task
    async def send_receipt(email: str, cents: int) -> str:
        return f"sent to {email}"

    async def charge(order: Order) -> None: ...

    names = {
        "app": app,
        "orders": orders,
        "alerts": alerts,
        "mail": Queue("mail"),
        "send_receipt": send_receipt,
        "charge": charge,
    }
    return {**names, "Order": Order, "Alert": Alert, "Retry": Retry, "email": "a@b.c", "cents": 500}


async def run(text: str, names: Mapping[str, Any]) -> None:
    made = eval(compile(text, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), dict(names))
    if inspect.isawaitable(made):
        await made


@pytest.mark.parametrize(("name", "number"), FRAGMENTS)
async def test_pieces_run_in_their_surroundings(name: str, number: int) -> None:
    text, names = blocks(DOCS / name, "python")[number], surroundings()
    # declares what is in the surroundings already, then waits for what nobody handles
    if "@app.task" in text:
        declared, _, used = text.partition("\n\n")
        names["app"] = App("shop", streams="memory://", jobs="memory://")
        exec(declared, names)
        async with names["app"].running():
            await asyncio.wait_for(run(used.replace("print(", "str("), names), 10)
    elif "async with app" in text or "@app.subscriber" in text:
        await run(text, names)
    else:
        async with names["app"]:
            await run(text, names)


def test_the_tests_of_the_page_about_tests_pass(tmp_path: Path) -> None:
    story, web, running, contract = blocks(DOCS / "testing.md", "python")
    (tmp_path / "shop.py").write_text(blocks(DOCS / "index.md", "python")[0])
    (tmp_path / "test_story.py").write_text(story)
    (tmp_path / "api.py").write_text(blocks(DOCS / "fastapi.md", "python")[0])
    (tmp_path / "test_web.py").write_text(web)
    (tmp_path / "test_contract.py").write_text(MINE + contract)
    inner = "\n".join("    " + line for line in running.splitlines())
    (tmp_path / "test_running.py").write_text(
        f"from shop import app, send_receipt\n\nasync def test_running() -> None:\n{inner}\n"
    )

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "asyncio_mode=auto",
        str(tmp_path),
    ]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "BUSLINE_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(blocks(ROOT / "README.md", "python")[0])
    (tmp_path / "orders.jsonl").write_text('{"id":"a2","email":"a@b.c","cents":1}\n')
    text = (
        SHELL
        + 'busline enqueue shop:app send_receipt \'{"email":"a@b.c","cents":500}\' --delay 60\n'
    )
    worker = subprocess.Popen(
        [sys.executable, "-m", "busline", "run", "shop:app"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )

    try:
        done = subprocess.run(
            ["bash"],
            input=text + "".join(blocks(page, "sh")),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        worker.terminate()
        worker.wait(30)

    assert done.returncode == 0, done.stderr
    for shown in ANSWERS.findall(page.read_text()):
        assert shown in done.stdout, done.stdout


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUSLINE_")}
    return kept | {"PYTHONPATH": str(ROOT / "src")}
