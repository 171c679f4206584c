"""Health and readiness over HTTP: also while the loop is blocked, and while an engine is away."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from tests.cli.conftest import Project, read_until
from tests.servers.redis import Server, free_port, running

BLOCKS = """
    import time

    from busline import App

    app = App("blocks")


    @app.task
    async def block(seconds: float) -> None:
        print("blocking", flush=True)
        time.sleep(seconds)
"""


def ask(port: int, page: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


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

    project.run("enqueue", "blocks:app", "block", '{"seconds": 3}')
    read_until(worker, "blocking")

    assert ask(port, "/healthz") == (200, {"alive": True})
    assert ask(port, "/asyncapi")[1]["info"]["title"] == "blocks"
    assert ask(port, "/") == (404, {"pages": ["/asyncapi", "/healthz", "/readyz"]})
    read_until(worker, "'block' (")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_readiness_names_what_is_away_and_liveness_does_not_depend_on_it(project: Project) -> None:
    project.write("blocks.py", BLOCKS)
    port = free_port()
    with running() as server:
        worker = started_before_its_engine(project, server, port)
        server.stop()
        assert eventually(lambda: ask(port, "/readyz")[0] == 503)
        told = ask(port, "/readyz")[1]
        assert "expected an answer" in told["waiting_for"]["blocks"] and ask(port, "/healthz")[0] == 200
        server.start()
        assert eventually(lambda: ask(port, "/readyz")[0] == 200)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


def started_before_its_engine(project: Project, server: Server, port: int) -> Any:
    """A worker that waits for its engine: alive, and not ready."""
    server.stop()
    worker = project.start("run", "blocks:app", "--http", f"127.0.0.1:{port}", env={"BUSLINE_JOBS": server.url})
    assert eventually(lambda: listens(port))
    assert eventually(lambda: "expected an answer" in str(ask(port, "/readyz")[1]["waiting_for"].get("start")))
    assert ask(port, "/healthz")[0] == 200
    server.start()
    read_until(worker, "runs:")
    return worker


def listens(port: int) -> bool:
    try:
        return ask(port, "/healthz")[0] == 200
    except urllib.error.URLError:
        return False


def test_a_place_that_is_taken_or_wrong_is_one_text(project: Project) -> None:
    project.write("blocks.py", BLOCKS)
    with running() as server:
        taken = project.run("run", "blocks:app", "--http", f"127.0.0.1:{server.port}")
    wrong = project.run("run", "blocks:app", "--http", "here")

    assert (
        taken.returncode == 2 and "expected a free address of this machine, got [Errno 98] Address already in use. Choose another for --http." in taken.stderr
    )
    assert wrong.returncode == 2 and "'here': expected host:port, got another form." in wrong.stderr
