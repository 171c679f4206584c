"""The page in a real browser: nothing from elsewhere, nothing that runs, nothing that is cut
off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from examples.both_worlds.app import app as photos
from examples.flights.app import app as flights
from examples.java import app as java
from examples.shop import app as shop
from examples.tenants import app as tenants
from playwright.async_api import Browser, Page

from busline import Kafka, Redis
from busline.asyncapi import document, page
from busline.asyncapi.fields import kind
from busline.asyncapi.html import markup, tag
from busline.cli.http import Page as Answer
from busline.cli.http import served
from tests.asyncapi.torture import app as torture
from tests.servers.chromium import browser, chromium, in_its_loop
from tests.servers.redis import free_port

__all__ = ["browser", "chromium"]

APPS = {
    "shop": shop,
    "java": java,
    "flights": flights,
    "tenants": tenants,
    "photos": photos,
    "torture": torture,
}
BAD = '</script></style><img src="https://evil.example/x" onerror="document.title=1">'


class Visit:
    """A page, and whatever it asked for or complained about."""

    def __init__(self, view: Page) -> None:
        self.view, self.asked, self.said = view, list[str](), list[str]()
        view.on("request", lambda one: self.asked.append(one.url))
        view.on("console", lambda one: self.said.append(one.text))
        view.on("pageerror", lambda one: self.said.append(str(one)))


async def visited(browser: Browser, url: str) -> Visit:
    visit = Visit(await browser.new_page())
    await visit.view.goto(url)
    return visit


def made(name: str) -> Mapping[str, Any]:
    return document(APPS[name], version="1.0")


@pytest.mark.server
@in_its_loop
@pytest.mark.parametrize("name", APPS)
async def test_a_browser_has_nothing_to_say(
    name: str, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torture, "_named", (Kafka("one:9092"), Redis("redis://host:6379")))
    file = tmp_path / "page.html"
    file.write_text(page(made(name)))

    visit = await visited(browser, file.as_uri())
    papers = {
        await looked_at(visit.view, width, theme)
        for width in (360, 1280)
        for theme in ("light", "dark")
    }

    assert await visit.view.title() == made(name)["info"]["title"]
    assert len(papers) == 2, "light and dark"
    assert (visit.asked, visit.said) == ([file.as_uri()], [])


async def looked_at(view: Page, width: int, theme: Any) -> str:
    """Fails where something is cut off. Returns the colour of the paper."""
    await view.set_viewport_size({"width": width, "height": 800})
    await view.emulate_media(color_scheme=theme)
    assert await view.evaluate("document.documentElement.scrollWidth") == width
    return str(await view.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.server
@in_its_loop
async def test_every_link_leads_somewhere(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(made("torture")))

    visit = await visited(browser, file.as_uri())
    astray = (
        "[...document.links].map(one => one.getAttribute('href')).filter(one =>"
        " !document.getElementById(one.slice(1)))"
    )

    assert await visit.view.evaluate("document.links.length") > 20
    assert await visit.view.evaluate(astray) == []


@pytest.mark.server
@in_its_loop
async def test_markup_in_any_text_stays_text_and_could_not_run_if_it_did_not(
    browser: Browser,
) -> None:
    bad = poisoned(made("torture"))
    port = free_port()

    with served(
        f"127.0.0.1:{port}",
        {
            "/": lambda _: Answer(200, "text/html", page(bad)),
            "/raw": lambda _: Answer(200, "text/html", raw(bad)),
        },
    ):
        safe = await visited(browser, f"http://127.0.0.1:{port}/")
        broken = await visited(browser, f"http://127.0.0.1:{port}/raw")

        assert len(safe.asked) == 1 and await safe.view.title() == "torture & </script>" + BAD
        assert await safe.view.evaluate("document.images.length") == 0
        assert await broken.view.title() != "1" and any(
            "Content Security Policy" in one for one in broken.said
        )


def poisoned(value: Any) -> Any:
    """A document in which every text of the user's has markup."""
    if isinstance(value, Mapping):
        return {
            name: (
                one + BAD
                if name in ("title", "summary", "description", "default", "const")
                and isinstance(one, str)
                else poisoned(one)
            )
            for name, one in value.items()
        }
    return [poisoned(one) for one in value] if isinstance(value, list) else value


def raw(document: Mapping[str, Any]) -> str:
    """The same page, were nothing escaped: for what the policy is worth."""
    return page(document).replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')


def test_what_is_no_markup_is_escaped() -> None:
    assert (
        tag("p", "<b>", tag("i", '"x" & y'), title='"')
        == '<p title="&quot;">&lt;b&gt;<i>&quot;x&quot; &amp; y</i></p>'
    )
    assert markup(None, 1, "<") == "1&lt;"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "format": "uuid"}, "string (uuid)"),
        (
            {"type": "array", "items": {"$ref": "#/components/schemas/A"}},
            'array of <a href="#model-A">A</a>',
        ),
        (
            {"type": "array", "items": [{"type": "integer"}, {"type": "string"}]},
            "[integer, string]",
        ),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer or null"),
        (
            {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
            "integer (≥ <code>1</code>) or null",
        ),
        (
            {"type": "array", "items": {"type": "string", "maxLength": 9}},
            "array of string (length ≤ <code>9</code>)",
        ),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "map of number"),
        ({"enum": ["a", 1]}, "<code>&quot;a&quot;</code> or <code>1</code>"),
        ({"const": "cat"}, "<code>&quot;cat&quot;</code>"),
        ({}, "anything"),
        ({"not": {}}, "<code>{&quot;not&quot;: {}}</code>"),
    ],
)
def test_types_are_told_in_words(schema: Mapping[str, Any], words: str) -> None:
    assert kind(schema) == words
