"""The site builds, and would not with a broken link; what the pages show for other tools is what
those tools read."""

import configparser
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.async_api import Browser, Page

import busline
import busline.asyncapi
import busline.testing
from busline import App, Depends, Kafka, Queue, Redis, Retry, Router, Sqlite, Topic
from busline.app import CANCEL, DRAIN
from busline.cli.run import CLOSING
from tests.docs.test_pages import DOCS, PAGES, ROOT, blocks
from tests.servers.chromium import browser, chromium, in_its_loop

__all__ = ["browser", "chromium"]

ELSEWHERE = (
    "tutorial.md",
    "redis.md",
    "sqlite.md",
    "sends.md",
    "jobs.md",
    "testing.md",
)  # run by tests of their own
# each block of theirs is a whole program
RUN = [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE]
FOREIGN = re.compile(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="?(?:https?:)?//[^>]*')
CUT_OFF = (
    "what => [...document.querySelectorAll(what)].filter(one => one.scrollWidth > one.clientWidth +"
    " 1).map(one => one.innerText)"
)
VALUES = {"KeyValue", "Seconds"}  # aliases: told in a sentence
INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "STOPSIGNAL", "CMD", "EXPOSE"}


def build(folder: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(folder / "mkdocs.yml"),
        "-d",
        str(into),
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    done = build(ROOT, into)
    assert done.returncode == 0, done.stderr
    return into


@pytest.mark.slow
def test_each_broken_link_stops_the_build(tmp_path: Path) -> None:
    links = ["nowhere.md", "tutorial.md#nowhere", "nowhere.png"]
    (tmp_path / "docs").mkdir()
    (tmp_path / "scripts").mkdir()
    for name in ("mkdocs.yml", "scripts/columns.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for page in DOCS.glob("*.md"):
        (tmp_path / "docs" / page.name).write_text(
            "# Reference\n" if page.name == "reference.md" else page.read_text()
        )
    with (tmp_path / "docs" / "why.md").open("a") as why:
        why.writelines(f"\n[nowhere]({link})\n" for link in links)

    done = build(tmp_path, tmp_path / "site")

    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert done.returncode != 0 and len(warnings) == len(links), done.stderr
    assert [link for link in links if f"'{link}'" not in done.stderr] == []


def test_nothing_on_the_site_comes_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert pages
    assert [
        (page.name, found[0]) for page in pages if (found := FOREIGN.search(page.read_text()))
    ] == []


@pytest.mark.slow
@pytest.mark.server
@in_its_loop
async def test_no_line_is_cut_on_a_desk_and_no_table_on_a_phone(
    site: Path, browser: Browser
) -> None:
    view, papers = await browser.new_page(), set[str]()
    for page in sorted(site.rglob("index.html")):
        await view.goto(page.as_uri())
        papers |= {
            await cut_off(page, view, 1280, "light", "pre > code"),
            await cut_off(page, view, 390, "dark", "table"),
        }

    assert len(papers) == 2, "light and dark, as the system is"


async def cut_off(page: Path, view: Page, width: int, theme: Any, what: str) -> str:
    """Fails where something is. Returns the colour of the paper."""
    await view.set_viewport_size({"width": width, "height": 800})
    await view.emulate_media(color_scheme=theme)
    assert await view.evaluate(CUT_OFF, what) == [], page
    assert await view.evaluate("document.documentElement.scrollWidth") == width, page
    return str(await view.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.server
@in_its_loop
async def test_what_is_typed_can_be_copied(site: Path, browser: Browser) -> None:
    view = await browser.new_page()
    await view.goto((site / "tutorial" / "index.html").as_uri())

    assert (
        await view.locator("button[data-md-type=copy]:visible").count()
        == await view.locator(".highlight:not(.language-text)").count()
        > 0
    )


def test_every_public_name_has_its_place_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "index.html").read_text()
    public = {*busline.__all__, *busline.asyncapi.__all__, *busline.testing.__all__}
    assert {
        name for name in public if not re.search(rf'id="busline[\w.]*\.{name}"', text)
    } == VALUES
    assert all(f"<code>{name}</code>" in text for name in VALUES)


@pytest.mark.parametrize(
    "made",
    [App, Router, Topic, Queue, Retry, Depends, Sqlite, Redis, Kafka],
    ids=lambda made: made.__name__,
)
def test_the_reference_shows_what_is_made_with_what(made: type, site: Path) -> None:
    text = re.sub("<[^>]+>", "", (site / "reference" / "index.html").read_text())
    shown = re.search(
        rf"^{made.__name__}\((.*?)^\)|^{made.__name__}\(([^\n]*)\)$", text, re.MULTILINE | re.DOTALL
    )
    assert shown is not None
    assert [
        name
        for name in inspect.signature(made).parameters
        if not re.search(rf"\b{name}: ", shown[1] or shown[2])
    ] == []


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in DOCS.glob("*.md") if f": {page.name}\n" not in contents] == []


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_programs_run_as_they_stand(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (text, shown) in enumerate(programs(page)):
        (tmp_path / f"program{number}.py").write_text(text)
        done = subprocess.run(
            [sys.executable, f"program{number}.py"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert shown is None or done.stdout == shown


def programs(page: Path) -> Iterator[tuple[str, str | None]]:
    """Each program of a page, and what it prints if that stands right below it."""
    for part in re.split(r"^```python\n", page.read_text(), flags=re.MULTILINE)[1:]:
        text, _, rest = part.partition("\n```\n")
        shown = re.match(r"\n```text\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
        yield text + "\n", shown and shown[1]


def test_the_command_reads_the_programs_of_the_pages(tmp_path: Path) -> None:
    for name in ("fastapi.md", "from-celery.md", "from-arq.md", "from-faststream.md"):
        (tmp_path / "shop.py").write_text(blocks(DOCS / name, "python")[0])
        done = subprocess.run(
            [sys.executable, "-m", "busline", "check", "shop:app"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_for_other_tools_can_be_read(page: Path) -> None:
    for text in blocks(page, "yaml"):
        for found in yaml.safe_load_all(text):
            check_yaml(found)
    for text in blocks(page, "toml"):
        tomllib.loads(text)
    for text in blocks(page, "ini"):
        configparser.ConfigParser(strict=False, interpolation=None).read_string(text)
    for text in blocks(page, "dockerfile"):
        assert {line.split()[0] for line in text.splitlines() if line} <= INSTRUCTIONS


def check_yaml(found: Any) -> None:
    assert "services" in found or {"apiVersion", "kind", "metadata", "spec"} <= found.keys()
    if found.get("kind") == "Deployment":
        (container,) = found["spec"]["template"]["spec"]["containers"]
        assert [
            container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")
        ] == ["/healthz", "/readyz"]


def triggers() -> dict[str, dict[str, str]]:
    """What the page on deployment lets KEDA look at, by the trigger's type."""
    (scaled,) = (
        found
        for text in blocks(DOCS / "deployment.md", "yaml")
        for found in yaml.safe_load_all(text)
        if found.get("kind") == "ScaledObject"
    )
    return {one["type"]: one["metadata"] for one in scaled["spec"]["triggers"]}


def test_the_page_on_deployment_speaks_of_the_tutorial() -> None:
    tutorial, page, kafka = (
        (DOCS / "tutorial.md").read_text(),
        (DOCS / "deployment.md").read_text(),
        triggers()["kafka"],
    )

    assert (
        f"group {kafka['consumerGroup']}, order" in tutorial
        and f"{kafka['topic']} -> invoices" in tutorial
    )
    copied = [
        line.split()[1]
        for text in blocks(DOCS / "deployment.md", "dockerfile")
        for line in text.splitlines()
        if line.startswith("COPY ")
    ]
    assert (
        copied == ["busline", "--from=build", "shop.py"]
        and "pip install ./busline" in tutorial
        and "# file: shop.py" in tutorial
    )
    assert f"{DRAIN + CANCEL + CLOSING:.0f} s in all" in page
