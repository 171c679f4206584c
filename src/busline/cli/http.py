"""`run --http`: whether it lives, whether it is ready, and its document, from a thread beside the loop."""

import json
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, TypeAlias

from busline.core.errors import Invalid, wrong


class Page(NamedTuple):
    """An answer."""

    status: int
    type: str
    text: str
    policy: str = "default-src 'none'"


Pages: TypeAlias = dict[str, Callable[[str], Page]]  # asked with what the client accepts


def as_json(status: int, data: object) -> Page:
    return Page(status, "application/json", json.dumps(data, indent=2) + "\n")


@contextmanager
def served(place: str, pages: Pages) -> Generator[None]:
    """Answers at `host:port` while it is entered. Raises Invalid for a place that cannot be listened at."""
    try:
        server = ThreadingHTTPServer(_address(place), _handler(pages))
    except (OSError, OverflowError) as error:
        raise Invalid(wrong(place, "a free address of this machine", str(error), "Choose another for --http.")) from error
    server.daemon_threads = True
    os.register_at_fork(after_in_child=server.socket.close)  # a child that outlives us would keep the port
    threading.Thread(target=server.serve_forever, args=(0.2,), name="busline http", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _address(place: str) -> tuple[str, int]:
    host, found, port = place.rpartition(":")
    if not found or not port.isdecimal():
        raise Invalid(wrong(place, "host:port", "another form", "Write --http 127.0.0.1:8080, or 0.0.0.0:8080 for all addresses."))
    return host.strip("[]"), int(port)


def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version, server_version, sys_version = "HTTP/1.1", "busline", ""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            self._answer(as_json(404, {"pages": sorted(pages)}) if page is None else page(self.headers.get("Accept", "")))

        def _answer(self, page: Page) -> None:
            body = page.text.encode()
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
