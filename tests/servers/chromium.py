"""A real Chromium, as Debian or its maker installs it."""

import shutil
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

in_its_loop = pytest.mark.asyncio(loop_scope="module")
NAMES = ("chromium", "chromium-browser", "google-chrome")


def how() -> dict[str, Any]:
    """What playwright launches it with."""
    return {
        "executable_path": next(path for name in NAMES if (path := shutil.which(name))),
        "args": ["--no-sandbox"],
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncGenerator[Browser]:
    async with async_playwright() as play:
        browser = await play.chromium.launch(**how())
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def browser(chromium: Browser) -> AsyncGenerator[Browser]:
    """One for all tests of a file, which run `in_its_loop`; what a test opened is closed with
    it."""
    yield chromium
    for view in chromium.contexts:
        await view.close()
