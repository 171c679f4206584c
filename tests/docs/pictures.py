"""Makes the README's pictures; with a folder, screenshots of the whole site to look at:
`./scripts/pictures [FOLDER]`."""

import html
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from examples.shop import app
from playwright.sync_api import Browser, sync_playwright

from busline.asyncapi import document, page
from tests.servers.chromium import how

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
SEEN = {
    "home": "",
    "tutorial": "tutorial/",
    "guarantees": "guarantees/",
    "asyncapi": "asyncapi/",
    "page": "shop.html",
}
UP = re.compile(r"\x1b\[(\d+)A")
TERMINAL = """<style>
body { margin: 0; padding: 14px 18px; background: #10243d; color: #e6edf5; }
body { font: 14px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { margin: 0; font: inherit; } b { color: #ffb224; } i { color: #6fce9b; font-style: normal; }
</style><pre>"""


def main() -> None:
    with sync_playwright() as play, tempfile.TemporaryDirectory() as folder:
        browser = play.chromium.launch(**how())
        asyncapi = Path(folder) / "asyncapi.html"
        asyncapi.write_text(page(document(app, version="1.0")))
        if len(sys.argv) > 1:
            look(browser, Path(sys.argv[1]), asyncapi)
        else:
            demo = Path(folder) / "demo.html"
            demo.write_text(TERMINAL + coloured(seen(terminal_of("-m", "examples.flights.demo"))))
            taken(browser, demo.as_uri(), PICTURES / "demo.png", 1000, whole=True)
            taken(browser, asyncapi.as_uri(), PICTURES / "asyncapi.png", 1100)


# --- the demo --------------------------------------------------------------------------------


def terminal_of(*words: str) -> str:
    """What a program writes to its terminal."""
    said = bytearray()

    def read(terminal: int) -> bytes:
        found = os.read(terminal, 65536)
        said.extend(found)
        return found

    os.environ["COLUMNS"] = "100"
    pty.spawn([sys.executable, *words], read)
    return said.decode()


def seen(said: str) -> list[str]:
    """The lines that stand on the terminal when the worker that was killed has caught up."""
    lines: list[str] = []
    for line in said.partition("\n4. ")[0].replace("\r", "").split("\n"):
        if up := UP.match(line):
            del lines[-int(up[1]) :]
        lines.append(re.sub(r"\x1b\[[0-9;]*[A-Z]", "", line))
    return ["$ ./scripts/demo", *lines]


def coloured(lines: list[str]) -> str:
    text = html.escape("\n".join(lines).rstrip(), quote=False)
    return re.sub(
        r"(#+)", r"<i>\1</i>", re.sub(r"^(\$ .*|\d\. .*)$", r"<b>\1</b>", text, flags=re.MULTILINE)
    )


# --- the site --------------------------------------------------------------------------------


def look(browser: Browser, into: Path, asyncapi: Path) -> None:
    """Every kind of page, on a desk and on a phone, by day and by night."""
    into.mkdir(parents=True, exist_ok=True)
    site = into / "site"
    subprocess.run([ROOT / "scripts" / "docs", "--quiet", "-d", site], check=True)
    shutil.copy(asyncapi, site / "shop.html")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever).start()
        for name, path in SEEN.items():
            for width in (1280, 390):
                for theme in ("light", "dark"):
                    address = f"http://127.0.0.1:{server.server_port}/{path}"
                    taken(browser, address, into / f"{name}-{width}-{theme}.png", width, theme)
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


def taken(
    browser: Browser,
    address: str,
    picture: Path,
    width: int,
    theme: str = "light",
    *,
    whole: bool = False,
) -> None:
    height = 100 if whole else 800
    view = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
    )
    view.goto(address, wait_until="networkidle")
    view.screenshot(path=picture, full_page=whole)
    view.close()


if __name__ == "__main__":
    main()
