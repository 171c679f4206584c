"""`run --http`: whether it lives, whether it is ready, and its document, from a thread beside the
loop."""

import json
import os
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, TypeAlias

from busline.core.errors import Invalid, wrong

WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")


class Page(NamedTuple):
    """An answer."""

    status: int
    type: str
    text: str
    policy: str = "default-src 'none'"


Pages: TypeAlias = dict[str, Callable[[str], Page]]  # asked with what the client accepts


def encoded(text: str) -> bytes:
    """UTF-8, whatever the locale. What UTF-8 does not have, half a character, is written out."""
    return text.encode("utf-8", "backslashreplace")


def liking(accepts: str, type: str) -> tuple[float, int]:
    """How much a client that accepts this likes a type: its weight, and how closely the type was
    named."""
    named, weight = max((_named(type, word), _weight(word)) for word in accepts.lower().split(","))
    return (weight, named) if named and weight else (0.0, 0)


def _named(type: str, word: str) -> int:
    """3: by its name, 2: by its kind, 1: as anything, 0: not at all."""
    return {type: 3, f"{type.partition('/')[0]}/*": 2, "*/*": 1}.get(
        word.partition(";")[0].strip(), 0
    )


def _weight(word: str) -> float:
    for part in word.split(";")[1:]:
        name, _, value = part.partition("=")
        if name.strip() == "q":
            return float(value) if WEIGHT.fullmatch(value.strip()) else 0.0
    return 1.0


def as_json(status: int, data: object) -> Page:
    return Page(status, "application/json", json.dumps(data, indent=2) + "\n")


@contextmanager
def served(place: str, pages: Pages) -> Generator[None]:
    """Answers at `host:port` while it is entered. Raises Invalid for a place that cannot be
    listened at."""
    try:
        server = ThreadingHTTPServer(_address(place), _handler(pages))
    except (OSError, OverflowError) as error:
        raise Invalid(
            wrong(place, "a free address of this machine", str(error), "Choose another for --http.")
        ) from error
    server.daemon_threads = True
    # a child that outlives us would keep the port
    os.register_at_fork(after_in_child=server.socket.close)
    threading.Thread(
        target=server.serve_forever, args=(0.2,), name="busline http", daemon=True
    ).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _address(place: str) -> tuple[str, int]:
    host, found, port = place.rpartition(":")
    if not found or not port.isdecimal():
        raise Invalid(
            wrong(
                place,
                "host:port",
                "another form",
                "Write --http 127.0.0.1:8080, or 0.0.0.0:8080 for all addresses.",
            )
        )
    return host.strip("[]"), int(port)


def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version, server_version, sys_version = "HTTP/1.1", "busline", ""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            self._answer(
                as_json(404, {"pages": sorted(pages)})
                if page is None
                else page(", ".join(self.headers.get_all("Accept", [])))
            )

        def _answer(self, page: Page) -> None:
            body = encoded(page.text)
            self.send_response(page.status)
            self.send_header("Content-Type", f"{page.type}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", page.policy)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds: nobody wants to read of them."""

    return Handler
