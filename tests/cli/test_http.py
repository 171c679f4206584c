"""Health and readiness over HTTP: also while the loop is blocked, and while an engine is away."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from busline.cli.http import liking
from tests.cli.conftest import Project, read_until
from tests.servers.redis import Server, free_port, running

BLOCKS = """
    import time
    from pathlib import Path

    from busline import App

    app = App("blocks")


    @app.task
    async def block() -> None:
        print("blocking", flush=True)
        while not Path("go").exists():
            time.sleep(0.01)
"""


def ask(port: int, page: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def headed(port: int) -> tuple[int, bytes]:
    """What a load balancer that asks for heads alone gets."""
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/readyz", method="HEAD"), timeout=30
    ) as answer:
        return answer.status, answer.read()


def browsed(port: int) -> str:
    """What a browser gets of the document."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/asyncapi", headers={"Accept": "text/html,*/*;q=0.8"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert (
            answer.headers["Content-Type"] == "text/html; charset=utf-8"
            and "sha256-" in answer.headers["Content-Security-Policy"]
        )
        return str(answer.read().decode())


def eventually(look: Callable[[], bool], seconds: float = 20) -> bool:
    end = monotonic() + seconds
    while not look():
        if monotonic() > end:
            return False
        sleep(0.05)
    return True


def test_it_answers_while_the_loop_is_blocked(project: Project) -> None:
    project.write("blocks.py", BLOCKS)
    port = free_port()
    worker = project.start("run", "blocks:app", "--http", f"127.0.0.1:{port}")
    read_until(worker, "runs:")
    assert ask(port, "/readyz") == (200, {"ready": True, "waiting_for": {}})

    project.call("enqueue", "blocks:app", "block")
    read_until(worker, "blocking")

    assert ask(port, "/healthz") == (200, {"alive": True})
    assert ask(port, "/asyncapi")[1]["info"]["title"] == "blocks"
    assert browsed(port).startswith("<!doctype html>")
    assert headed(port) == (200, b"")
    assert ask(port, "/") == (404, {"pages": ["/asyncapi", "/healthz", "/metrics", "/readyz"]})
    read_until(worker, "'block' (")
    project.write("go")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


MEASURED = """
    import time
    from pathlib import Path

    from prometheus_client import Counter
    from pydantic import BaseModel

    from busline import App, Reject, Retry, Topic


    class Order(BaseModel):
        id: str


    app, orders = App("measured", retry=Retry(2, delay=0)), Topic("orders", Order, key="id")
    mine = Counter("mine", "the user's own")


    @app.subscriber(orders)
    async def bill(order: Order) -> None:
        if order.id == "bad":
            raise ValueError(order.id)
        if order.id == "block":
            print("blocking", flush=True)
            while not Path("go").exists():
                time.sleep(0.01)


    @app.task
    async def send(to: str) -> None:
        if to == "nobody":
            raise Reject("no such person")
        mine.inc()


    @app.task(queue="slow")
    async def later() -> None: ...
"""


def measured(port: int) -> dict[str, float]:
    """What /metrics says, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = text_string_to_metric_families(answer.read().decode())
        return {
            "".join([one.name, *(f" {value}" for value in one.labels.values())]): one.value
            for family in families
            for one in family.samples
        }


def test_metrics_tell_what_became_of_everything_also_while_the_loop_is_blocked(
    project: Project,
) -> None:
    project.write("measured.py", MEASURED)
    port = free_port()
    worker = project.start("run", "measured:app", "--http", f"127.0.0.1:{port}")
    read_until(worker, "runs:")
    for id in ("good", "bad"):
        project.call("publish", "measured:app", "orders", json.dumps({"id": id}))
    for to in ("me", "nobody"):
        project.call("enqueue", "measured:app", "send", json.dumps({"to": to}))
    assert eventually(
        lambda: (
            measured(port)["busline_dead_total send"] == 1
            and measured(port)["busline_dead_total bill"] == 1
        )
    )
    project.call("enqueue", "measured:app", "later", "--delay", "3600")
    assert eventually(lambda: measured(port).get("busline_queue_depth slow delayed") == 1)
    assert eventually(
        lambda: (
            measured(port).get("busline_dead send") == 1
            and measured(port).get("busline_dead bill") == 1
        )
    )
    project.call("publish", "measured:app", "orders", '{"id": "block"}')
    read_until(worker, "blocking")
    project.call("publish", "measured:app", "orders", '{"id": "behind"}')
    found = measured(port)

    names = ("handled_total", "retried_total", "failed_total", "in_flight")
    assert {f"{name} bill": found[f"busline_{name} bill"] for name in names} == {
        "handled_total bill": 1, "retried_total bill": 1, "failed_total bill": 2,
        "in_flight bill": 1,
    }  # fmt: skip
    assert (
        found["busline_duration_seconds_count bill"],
        found["busline_duration_seconds_bucket bill +Inf"],
    ) == (3, 3)
    assert (
        found["busline_failed_total send"],
        found["busline_handled_total send"],
        found["busline_in_flight send"],
    ) == (1, 1, 0)
    assert (
        found["busline_ready"],
        found["mine_total"],
        found["busline_queue_depth measured waiting"],
    ) == (1, 1, 0)
    assert (
        found["busline_dead later"],
        found["busline_errors_total ValueError bill"],
        found["busline_errors_total Reject send"],
    ) == (0, 2, 1)
    assert (
        found["busline_lag measured.bill orders"] >= 0
        and found["busline_frontier_age_seconds measured.bill"] >= 0
    )
    assert (
        found["busline_queue_oldest_seconds slow"] == 0 and found["busline_sample_age_seconds"] >= 0
    )
    assert {
        "busline_skipped_total bill",
        "busline_refused_total bill",
        "busline_gaps_total bill",
    } <= found.keys()
    project.write("go")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


STRAY = """
    import asyncio

    from busline import App, Retry

    app = App("stray", retry=Retry(1))


    @app.task
    async def ends(how: str) -> None:
        if how == "inner":
            inner = asyncio.create_task(asyncio.sleep(60))
            inner.cancel()
            await inner
        ends = {"cancel": asyncio.CancelledError, "exit": SystemExit}
        ends |= {"interrupt": KeyboardInterrupt, "generator": GeneratorExit}
        raise ends[how]()


    @app.task
    async def works() -> None:
        print("worked", flush=True)
"""


def test_strays_that_end_other_loops_leave_it_ready(project: Project) -> None:
    project.write("stray.py", STRAY)
    port = free_port()
    worker = project.start("run", "stray:app", "--http", f"127.0.0.1:{port}")
    read_until(worker, "runs:")

    hows = ("inner", "cancel", "exit", "interrupt", "generator")
    for how in hows:
        project.call("enqueue", "stray:app", "ends", json.dumps({"how": how}))
    assert eventually(lambda: measured(port)["busline_dead_total ends"] == len(hows))
    project.call("enqueue", "stray:app", "works")
    read_until(worker, "worked")

    assert ask(port, "/readyz") == (200, {"ready": True, "waiting_for": {}})
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_without_prometheus_the_page_says_what_to_install(project: Project) -> None:
    project.write("blocks.py", BLOCKS)
    project.write("prometheus_client.py", "raise ModuleNotFoundError('none')")
    port = free_port()
    worker = project.start("run", "blocks:app", "--http", f"127.0.0.1:{port}")
    read_until(worker, "runs:")

    status, said = ask(port, "/metrics")

    assert status == 501 and 'pip install "pybusline[prometheus]"' in said["error"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


@pytest.mark.server
def test_readiness_names_what_is_away_and_liveness_does_not_depend_on_it(project: Project) -> None:
    project.write("blocks.py", BLOCKS)
    port = free_port()
    with running() as server:
        worker = started_before_its_engine(project, server, port)
        server.stop()
        assert eventually(lambda: ask(port, "/readyz")[0] == 503)
        told = ask(port, "/readyz")[1]
        assert (
            "expected an answer" in told["waiting_for"]["blocks"]
            and ask(port, "/healthz")[0] == 200
        )
        server.start()
        assert eventually(lambda: ask(port, "/readyz")[0] == 200)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


def started_before_its_engine(project: Project, server: Server, port: int) -> Any:
    """A worker that waits for its engine: alive, and not ready."""
    server.stop()
    worker = project.start(
        "run", "blocks:app", "--http", f"127.0.0.1:{port}", env={"BUSLINE_JOBS": server.url}
    )
    assert eventually(lambda: listens(port))
    assert eventually(
        lambda: "expected an answer" in str(ask(port, "/readyz")[1]["waiting_for"].get("start"))
    )
    assert ask(port, "/healthz")[0] == 200
    server.start()
    read_until(worker, "runs:")
    return worker


def listens(port: int) -> bool:
    try:
        return ask(port, "/healthz")[0] == 200
    except urllib.error.URLError:
        return False


@pytest.mark.server
def test_a_place_that_is_taken_or_wrong_is_one_text(project: Project) -> None:
    project.write("blocks.py", BLOCKS)
    with running() as server:
        taken = project.run("run", "blocks:app", "--http", f"127.0.0.1:{server.port}")
    wrong = project.run("run", "blocks:app", "--http", "here")

    assert (
        taken.returncode == 2
        and "expected a free address of this machine, got [Errno 98] Address already in use."
        " Choose another for --http."
        in taken.stderr
    )
    assert wrong.returncode == 2 and "'here': expected host:port, got another form." in wrong.stderr


@pytest.mark.parametrize(
    ("accepts", "type"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("text/html", "html"),
        ("text/*;q=0.5, application/json;q=0.4", "html"),
        ("TEXT/HTML; Q=0.9, application/json;q=0.8", "html"),
        ("text/html;charset=utf-8, */*", "html"),
        ("", "json"),
        ("*/*", "json"),
        ("text/html;q=0", "json"),
        ("text/html;q=0.1, */*;q=0.5", "json"),
        ("application/json, text/html;q=0.9", "json"),
        ("text/html;q=nan, application/json;q=0.1", "json"),
        ("text/htmlx", "json"),
    ],
)
def test_a_page_is_for_those_who_like_it_better(accepts: str, type: str) -> None:
    assert (
        "html" if liking(accepts, "text/html") > liking(accepts, "application/json") else "json"
    ) == type
