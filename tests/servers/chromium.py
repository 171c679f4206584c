"""A real Chromium, as Debian or its maker installs it."""

import shutil
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def how() -> dict[str, Any]:
    """What playwright launches it with."""
    return {
        "executable_path": next(path for name in NAMES if (path := shutil.which(name))),
        "args": ["--no-sandbox"],
    }


@pytest.fixture
async def browser() -> AsyncGenerator[Browser]:
    async with async_playwright() as play:
        browser = await play.chromium.launch(**how())
        yield browser
        await browser.close()
