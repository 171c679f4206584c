"""The document as one page of HTML: no script, nothing from elsewhere."""

import base64
import json
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from busline.asyncapi.fields import described
from busline.asyncapi.html import Html, code, joined, markup, table, tag

KINDS = (
    ("topic_", "Topics"),
    ("queue_", "Queues"),
    ("result_", "Results"),
    ("dead_", "Dead letters"),
)
VIEWPORT = (
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width,'
    ' initial-scale=1"><meta name="color-scheme" content="light dark">'
)


@cache
def style() -> str:
    return (Path(__file__).parent / "page.css").read_text("utf-8")


@cache
def policy() -> str:
    """The Content-Security-Policy under which the page works: its own style, and nothing else at
    all."""
    known = base64.b64encode(sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{known}'; base-uri 'none'; form-action 'none'"


def page(document: Mapping[str, Any]) -> str:
    """A whole page, in which every text of the document is escaped."""
    title = document["info"]["title"]
    head = Html(
        f'{VIEWPORT}<meta http-equiv="Content-Security-Policy"'
        f' content="{policy()}"><style>{style()}</style>'
    )
    body = tag(
        "body",
        _header(document),
        tag("div", _contents(document), tag("main", *_sections(document)), class_="page"),
    )
    return (
        f"<!doctype html>\n{tag('html', tag('head', head, tag('title', title)), body, lang='en')}\n"
    )


def _header(document: Mapping[str, Any]) -> Html:
    info = document["info"]
    servers = [
        [code(name), one["protocol"], code(one["host"] + one.get("pathname", ""))]
        for name, one in document.get("servers", {}).items()
    ]
    about = info.get("description")
    return tag(
        "header",
        tag("h1", info["title"], " ", tag("small", info["version"])),
        tag("p", about, class_="about") if about else None,
        table(["server", "protocol", "address"], servers),
    )


# --- the parts -------------------------------------------------------------------------------


def _channels(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The channels by kind: its title, and those of it by their ids."""
    for start, title in KINDS:
        found = {
            id: one for id, one in document.get("channels", {}).items() if id.startswith(start)
        }
        if found:
            yield title, found


def _contents(document: Mapping[str, Any]) -> Html:
    parts = [
        (title, {f"channel-{id}": one["title"] for id, one in found.items()})
        for title, found in _channels(document)
    ]
    parts.append(("Models", {f"model-{name}": name for name in _models(document)}))
    lists = [
        markup(
            tag("h2", title),
            tag("ul", *(tag("li", tag("a", name, href=f"#{id}")) for id, name in found.items())),
        )
        for title, found in parts
        if found
    ]
    return tag("nav", *lists, aria_label="Contents")


def _sections(document: Mapping[str, Any]) -> Iterator[Html]:
    for title, found in _channels(document):
        yield tag(
            "section", tag("h2", title), *(_channel(document, id, one) for id, one in found.items())
        )
    models = [
        tag("article", tag("h3", name), described(one), id=f"model-{name}")
        for name, one in _models(document).items()
    ]
    if models:
        yield tag("section", tag("h2", "Models"), *models)


def _models(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document.get("components", {}).get("schemas", {})
    return found


def _channel(document: Mapping[str, Any], id: str, channel: Mapping[str, Any]) -> Html:
    operations = [
        one
        for one in document.get("operations", {}).values()
        if one["channel"]["$ref"] == f"#/channels/{id}"
    ]
    messages = [
        document["components"]["messages"][one["$ref"].rpartition("/")[2]]
        for one in channel["messages"].values()
    ]
    return tag(
        "article",
        tag("h3", channel["title"]),
        _facts(channel.get("bindings", {}).get("kafka", {}) | channel.get("x-busline-redis", {})),
        *map(_operation, operations),
        *(_message(one, _models(document)) for one in messages),
        id=f"channel-{id}",
    )


def _facts(found: Mapping[str, Any]) -> Html | None:
    told = [
        markup(name, " ", code(value if isinstance(value, str) else json.dumps(value)))
        for name, value in found.items()
    ]
    return tag("p", joined(" · ", told), class_="facts") if told else None


def _operation(operation: Mapping[str, Any]) -> Html:
    retry = operation.get("x-busline-retry", {})
    told = {
        "group": operation.get("x-busline-group"), "order": operation.get("x-busline-order"),
        "attempts": retry.get("attempts"),
        "longest wait": _seconds(retry.get("longest-wait")),
        "result kept": _seconds(operation.get("x-busline-keep-result")),
        "tags": ", ".join(one["name"] for one in operation.get("tags", [])) or None,
        "dead letters": ", ".join(operation.get("x-busline-dead-letters", [])) or None,
    }  # fmt: skip
    about = operation.get("description")
    return tag(
        "div",
        tag(
            "p",
            tag("b", operation["action"], class_=operation["action"]),
            " ",
            tag("strong", operation["title"]),
        ),
        tag("p", about, class_="about") if about else None,
        _facts({name: value for name, value in told.items() if value is not None}),
        class_="operation",
    )


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:g} s"


def _message(message: Mapping[str, Any], models: Mapping[str, Any]) -> Html:
    headers, payload = message.get("headers", {}), message["payload"]
    needed = headers.get("required", [])
    rows = [
        [code(name), "required" if name in needed else "optional"]
        for name in headers.get("properties", {})
    ]
    examples = [
        tag(
            "pre",
            tag("code", json.dumps(one["payload"], indent=2, ensure_ascii=False)),
            tabindex="0",
        )
        for one in message.get("examples", [])
    ]
    return tag(
        "div",
        tag("h4", message["title"]),
        described(models.get(str(payload.get("$ref")).rpartition("/")[2], payload)),
        tag(
            "details",
            tag("summary", "Headers", " and a key" if message.get("bindings") else None),
            table(["header", ""], rows),
        ),
        *examples,
        class_="message",
    )
