"""What a run answers over HTTP: whether it lives and is ready, its metrics, what it declares."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from busline.app import App
from busline.asyncapi import document, page, policy
from busline.cli.http import Page, Pages, as_json, liking, served
from busline.core.errors import wrong
from busline.middleware.metrics import Metrics
from busline.runtime.bus import Bus
from busline.runtime.samples import Samples

Lacks = Callable[[], Mapping[str, str]]
Seen = Callable[[], tuple[Bus, Samples] | None]


class Answers:
    """Asked by threads beside the loop. `lacks`: what keeps the run from being ready, by name;
    `seen`: what is sampled of it, once it runs."""

    def __init__(self, app: App, lacks: Lacks, seen: Seen) -> None:
        self._app, self._lacks, self._seen = app, lacks, seen
        self._document: dict[str, Any] | None = None

    @contextmanager
    def served(self, place: str) -> Generator[None]:
        """Answers while it is entered, also while the loop is blocked."""
        with ExitStack() as stack:
            pages: Pages = {
                "/healthz": lambda _: as_json(200, {"alive": True}),
                "/readyz": self._ready,
                "/asyncapi": self._described,
                "/metrics": self._metrics(stack),
            }
            stack.enter_context(served(place, pages))
            yield

    def _ready(self, _: str) -> Page:
        lacks = self._lacks()
        return as_json(503 if lacks else 200, {"ready": not lacks, "waiting_for": lacks})

    def _described(self, accepts: str) -> Page:
        """As a page for those who like one better, such as browsers, else as JSON."""
        if self._document is None:
            self._document = document(self._app)
        if liking(accepts, "text/html") > liking(accepts, "application/json"):
            return Page(200, "text/html", page(self._document), policy())
        return as_json(200, self._document)

    def _metrics(self, stack: ExitStack) -> Callable[[str], Page]:
        try:
            from busline.cli.metrics import Exported, exported, text
        except ModuleNotFoundError:
            remedy = 'pip install "pybusline[prometheus]"'
            lacks = wrong("/metrics", "prometheus_client", "none installed", remedy)
            return lambda _: as_json(501, {"error": lacks})
        metrics = self._app.setting.metrics = Metrics()
        stack.enter_context(exported(Exported(metrics, self._seen, lambda: not self._lacks())))
        return lambda _: Page(200, "text/plain; version=0.0.4", text())
