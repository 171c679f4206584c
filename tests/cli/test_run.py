"""`run`, as a process: what it says, how it is told to stop, and the status it leaves with."""

import fcntl
import json
import logging
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from busline.cli.logs import Text, is_coloured
from tests.cli.conftest import Project, read_until

SLOW = """
    import asyncio
    import logging
    import threading
    import time

    from busline import App

    from busline.cli import run

    app = App("slow")
    never = threading.Event()
    app.setting.cancel, run.CLOSING = 0.2, 0.5


    @app.task
    async def nap() -> None:
        print("now napping", flush=True)
        try:
            await asyncio.sleep(0.7)
            print("slept", flush=True)
        except asyncio.CancelledError:
            print("woken", flush=True)
            raise


    @app.task
    async def sleep() -> None:
        print("now asleep", flush=True)
        try:
            await asyncio.sleep(3600)
        finally:
            print("woken", flush=True)


    @app.task
    def stuck() -> None:
        print("now stuck", flush=True)
        never.wait()


    @app.task
    async def beside() -> None:
        print("now beside", flush=True)
        asyncio.get_running_loop().run_in_executor(None, never.wait)


    @app.task
    async def blocked() -> None:
        print("now blocked", flush=True)
        while True:
            time.sleep(0.05)
"""


@pytest.fixture
def slow(project: Project) -> Project:
    project.write("slow.py", SLOW)
    project.write("pyproject.toml", '[tool.busline]\napp = "slow:app"\n')
    return project


def finished(process: "subprocess.Popen[str]") -> tuple[int, str]:
    said, _ = process.communicate(timeout=30)
    return process.returncode, said


def interrupt_until_it_ends(process: "subprocess.Popen[str]") -> None:
    """A second Ctrl-C counts only after a second: pressed again and again, as people do."""
    for _ in range(100):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=0.3)
            return
        except subprocess.TimeoutExpired:
            continue


# --- what it says ----------------------------------------------------------------------------


def test_the_first_line_names_what_runs_and_the_last_counts_it(shop: Project) -> None:
    shop.call("publish", "orders", '{"id": "a", "cents": 5}')

    done = shop.run("run", "--until-idle", "--concurrency", "7")

    assert done.returncode == 0
    first = next(line for line in done.stderr.splitlines() if "runs:" in line)
    assert "'shop' runs: streams sqlite:////" in first
    assert re.search(
        r"groups shop\.bill on orders \(7 at once, (1|nothing) behind\); queues mail \(7 at once\),"
        r" shop \(7 at once\)",
        first,
    )
    assert done.stderr.splitlines()[-1].endswith("INFO    done: bill: handled 1")


def test_json_logs_are_json_lines(shop: Project) -> None:
    shop.call("enqueue", "fail", '{"text": "no luck"}')

    done = shop.run("run", "--until-idle", "--log-format", "json")

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    failed = [one for one in lines if one.get("error") == "no luck"]
    assert failed and all(
        one["error_type"] == "ValueError" and one["handler"] == "fail" for one in failed
    )
    assert "raise ValueError(text)" in failed[0]["traceback"] and not any(
        "traceback" in one for one in failed[1:]
    )
    assert lines[-1]["message"] == "done: fail: dead 1"


LOGS = """
    import logging

    from pydantic import BaseModel

    from busline import App, Retry, Topic


    class Order(BaseModel):
        id: str


    app, log = App("logs", retry=Retry(1)), logging.getLogger("mine")
    orders = Topic("orders", Order, key="id", partitions=1)


    @app.subscriber(orders)
    async def bill(order: Order) -> None:
        log.warning("looking at %s", order.id)
        raise ValueError("negative")
"""


def test_logs_say_what_was_being_handled(shop: Project) -> None:
    shop.write("logs.py", LOGS)
    trace = "0af7651916cd43dd8448eb211c80319c"
    for _ in range(2):
        shop.call(
            "publish",
            "logs:app",
            "orders",
            '{"id": "a"}',
            "--header",
            f"traceparent=00-{trace}-b7ad6b7169203331-01",
        )

    mine, dead = [], []
    for line in shop.run(
        "run", "logs:app", "--until-idle", "--log-format", "json"
    ).stderr.splitlines():
        entry = json.loads(line)
        mine += [entry] if entry["logger"] == "mine" else []
        dead += [entry] if "error" in entry else []
        assert entry.keys() >= {"message_id", "handler"} or "message_id" not in entry

    assert [one["position"] for one in mine] == ["orders/0@1", "orders/0@2"]
    assert [(one["handler"], one["attempt"], one["trace_id"]) for one in [*mine, *dead]] == [
        ("bill", 1, trace)
    ] * 4
    assert [one["message_id"] for one in mine] == [one["message_id"] for one in dead]


def test_text_logs_name_the_handler_behind_what_it_says(shop: Project) -> None:
    shop.write("logs.py", LOGS)
    shop.call("publish", "logs:app", "orders", '{"id": "a"}')

    done = shop.run("run", "logs:app", "--until-idle")

    assert "WARNING looking at a [bill orders/0@1, attempt 1]\n" in done.stderr
    assert "all 1 attempts failed [" not in done.stderr and "attempt failed [" not in done.stderr


STARTS = """
    import asyncio
    from contextlib import asynccontextmanager
    from pathlib import Path
    from typing import Annotated

    from busline import App, Depends, Topic


    @asynccontextmanager
    async def lifespan(app):
        while not Path("lifespan").exists():
            await asyncio.sleep(0.05)
        yield


    async def pool():
        while not Path("pool").exists():
            await asyncio.sleep(0.05)
        return 1


    app = App("starts", lifespan=lifespan)


    @app.subscriber(Topic("numbers", int))
    async def handle(number: int, pool: Annotated[int, Depends(pool, scope="app")]) -> None: ...
"""


def test_what_is_not_ready_says_what_it_waits_for(project: Project) -> None:
    project.write("starts.py", STARTS)
    process = project.start("run", "starts:app", "--until-idle")

    read_until(process, "not ready after 5 s, waiting for the lifespan")
    project.write("lifespan")
    read_until(process, "waiting for the dependency 'pool'")
    project.write("pool")
    read_until(process, "runs:")
    assert process.wait(20) == 0


EXTRA = """
    import logging

    from busline import App

    app, log = App("extra"), logging.getLogger("mine")


    class Odd:
        def __str__(self):
            raise ValueError("no text")


    @app.task
    async def ship(number: int) -> None:
        more = {"delivery": "home", "position": number, "level": 9, "order": {"id": number},
        "odd": Odd()}
        log.info("away", extra=more)
"""


def test_what_users_log_as_extra_is_theirs(shop: Project) -> None:
    shop.write("extra.py", EXTRA)
    shop.call("enqueue", "extra:app", "ship", '{"number": 7}')

    said = [
        json.loads(line)
        for line in shop.run(
            "run", "extra:app", "--until-idle", "--log-format", "json"
        ).stderr.splitlines()
    ]

    (mine,) = [one for one in said if one["logger"] == "mine"]
    assert (mine["delivery"], mine["position"], mine["order"], mine["odd"]) == (
        "home",
        7,
        {"id": 7},
        "<Odd>",
    )
    assert (mine["level"], mine["busline.level"], mine["handler"], mine["attempt"]) == (
        9,
        "info",
        "ship",
        1,
    )


def test_at_the_level_debug_each_message_is_a_line_with_its_milliseconds(shop: Project) -> None:
    shop.call("enqueue", "add", '{"a": 1}')

    said = [
        json.loads(line)
        for line in shop.run(
            "run", "--until-idle", "--log-level", "debug", "--log-format", "json"
        ).stderr.splitlines()
    ]

    (handled,) = [one for one in said if "milliseconds" in one]
    assert (
        handled["handler"] == "add"
        and handled["milliseconds"] > 0
        and re.search(r"'add' \w+, attempt 1, handled in [\d.]+ ms", handled["message"])
    )


def test_text_logs_say_the_zone_and_have_colours_on_a_terminal_only() -> None:
    record = logging.LogRecord("mine", logging.WARNING, __file__, 1, "look", None, None)
    record.created, record.msecs = 0.25, 250.0

    assert Text(coloured=False).format(record) == "1970-01-01 00:00:00.250 UTC WARNING look"
    assert (
        Text(coloured=True).format(record)
        == "1970-01-01 00:00:00.250 UTC \x1b[33mWARNING\x1b[0m look"
    )


@pytest.mark.parametrize(
    ("set_to", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_whether_a_terminal_has_colours(
    set_to: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    _, end = os.openpty()

    with open(end, "w") as terminal, open(os.devnull, "w") as other:
        assert is_coloured(terminal) is coloured and not is_coloured(other)


def test_the_log_level_is_kept(shop: Project) -> None:
    assert "runs:" not in shop.run("run", "--until-idle", "--log-level", "error").stderr


def test_logging_that_the_module_configures_stays_as_it_is(shop: Project) -> None:
    shop.write(
        "logged.py",
        "import logging\nlogging.basicConfig(format='MINE %(message)s', level='INFO')\nfrom shop"
        " import app\n",
    )

    done = shop.run("run", "logged:app", "--until-idle", "--log-format", "json")

    assert all(line.startswith("MINE ") for line in done.stderr.splitlines())
    assert "MINE done: nothing handled" in done.stderr


# --- what it runs ----------------------------------------------------------------------------


def test_only_and_queue_leave_the_rest_alone(shop: Project) -> None:
    shop.call("publish", "orders", '{"id": "a", "cents": 5}')
    shop.call("enqueue", "add", '{"a": 1}')
    shop.call("enqueue", "send", '{"to": "me"}')

    only = shop.run("run", "--only", "bill", "--until-idle")
    queue = shop.run("run", "--queue", "mail", "--until-idle")
    left = json.loads(shop.call("inspect", "--json").stdout)

    assert "done: bill: handled 1" in only.stderr
    assert "done: send: handled 1" in queue.stderr and "sent to me" in queue.stdout
    assert left["queues"]["shop"]["waiting"] == 1


def test_jobs_delayed_by_their_sender_do_not_hold_until_idle(shop: Project) -> None:
    shop.call("enqueue", "add", '{"a": 1}', "--delay", "3600")

    assert shop.run("run", "--until-idle").returncode == 0


def test_retries_hold_until_idle(project: Project) -> None:
    project.write(
        "again.py",
        """
        from busline import App, Delivery, INJECTED, Retry

        app = App("again")

        @app.task(retry=Retry(3, delay=0.3, jitter=False))
        async def third(delivery: Delivery = INJECTED) -> None:
            if delivery.attempt < 3:
                raise ValueError("not yet")
        """,
    )
    project.call("enqueue", "again:app", "third", "{}")

    assert (
        "done: third: handled 1 retried 2" in project.run("run", "again:app", "--until-idle").stderr
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "nobody"), "'nobody': expected one of add, bill, fail, send"),
        (("--queue", "nowhere"), "'nowhere': expected a queue of 'shop' (mail, shop)"),
        (("--concurrency", "0"), "concurrency"),
        (("nothing:app",), "no module 'nothing'"),
    ],
)
def test_a_wrong_run_leaves_with_2(shop: Project, words: tuple[str, ...], said: str) -> None:
    done = shop.run("run", *words)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# --- how it ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_what_runs_and_leaves_with_0(slow: Project, number: signal.Signals) -> None:
    slow.call("enqueue", "nap")
    process = slow.start("run")
    read_until(process, "now napping")

    process.send_signal(number)

    status, said = finished(process)
    assert status == 0
    assert "slept" in said and "done: nap: handled 1" in said


def test_any_number_of_sigterms_drains(slow: Project) -> None:
    slow.call("enqueue", "nap")
    process = slow.start("run")
    read_until(process, "now napping")

    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    process.terminate()

    assert "slept" in finished(process)[1]


def test_a_second_ctrl_c_cancels_what_runs_and_the_job_runs_again(slow: Project) -> None:
    slow.call("enqueue", "sleep")
    process = slow.start("run")
    read_until(process, "now asleep")

    interrupt_until_it_ends(process)

    status, said = finished(process)
    assert status == 0
    assert "woken" in said
    assert json.loads(slow.call("inspect", "--json").stdout)["queues"]["slow"]["waiting"] == 1


def test_a_ctrl_c_that_came_twice_at_once_is_one(slow: Project) -> None:
    slow.call("enqueue", "nap")
    process = slow.start("run")
    read_until(process, "now napping")

    process.send_signal(signal.SIGINT)
    read_until(process, "draining")
    process.send_signal(signal.SIGINT)

    assert "slept" in finished(process)[1]


@pytest.mark.parametrize("task", ["stuck", "beside"])
def test_a_thread_that_never_ends_does_not_keep_the_process(slow: Project, task: str) -> None:
    slow.call("enqueue", task)
    process = slow.start("run")
    read_until(process, f"now {task}")

    interrupt_until_it_ends(process)

    assert finished(process)[0] == 0


def test_a_blocked_loop_is_left_at_the_second_ctrl_c(slow: Project) -> None:
    slow.call("enqueue", "blocked")
    process = slow.start("run")
    read_until(process, "now blocked")

    interrupt_until_it_ends(process)

    status, said = finished(process)
    assert status == 70
    assert "did not end in time" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["import", "lifespan"])
def test_a_signal_before_readiness_ends_it_cleanly(
    project: Project, number: signal.Signals, where: str
) -> None:
    project.write(
        "early.py",
        f"""
        import asyncio, time
        from contextlib import asynccontextmanager
        from busline import App
        from busline.cli import run

        @asynccontextmanager
        async def slowly(app):
            print("now lifespan", flush=True)
            await asyncio.sleep(3600)
            yield

        app = App("early", lifespan=slowly)
        app.setting.cancel, run.CLOSING = 0.1, 0.3
        if "{where}" == "import":
            print("now import", flush=True)
            time.sleep(3600)
        """,
    )
    process = project.start("run", "early:app")
    read_until(process, f"now {where}")

    process.send_signal(number)

    status, said = finished(process)
    assert status == 0
    assert "Traceback" not in said


def test_an_error_of_the_lifespan_is_shown_and_leaves_with_70(project: Project) -> None:
    project.write(
        "bad.py",
        """
        from contextlib import asynccontextmanager
        from busline import App

        @asynccontextmanager
        async def badly(app):
            raise RuntimeError("no such luck")
            yield

        app = App("bad", lifespan=badly)
        """,
    )

    done = project.run("run", "bad:app")

    assert done.returncode == 70
    assert "RuntimeError: no such luck" in done.stderr


def test_a_status_that_user_code_asks_for_is_kept(project: Project) -> None:
    project.write("leaving.py", "import sys\nsys.exit(75)\n")

    assert project.run("run", "leaving:app").returncode == 75


# --- an engine that is away ------------------------------------------------------------------


@pytest.fixture
def away(shop: Project) -> Path:
    """The file's lock, for another to hold."""
    shop.write(
        "hasty.py",
        """
        from busline.cli import run
        from busline.transports.sqlite import lock, session

        run.SAY_EVERY = session.PATIENCE = lock.PATIENCE = 0.1
        from shop import app
        """,
    )
    shop.call("inspect")
    return next((shop.folder / ".busline").glob("*.lock"))


def test_an_engine_that_is_away_is_waited_for_and_each_wait_said(shop: Project, away: Path) -> None:
    with away.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = shop.start("run", "hasty:app", "--until-idle")
        read_until(process, "not ready after")
        read_until(process, "bus.db'")
        fcntl.flock(held, fcntl.LOCK_UN)
        read_until(process, "runs:")

    assert finished(process)[0] == 0


def test_an_engine_that_stays_away_ends_the_run_with_69(shop: Project, away: Path) -> None:
    with away.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = shop.run("run", "hasty:app", "--wait", "0.3")
        inspect = shop.run("inspect", "hasty:app")

    assert (run.returncode, inspect.returncode) == (69, 69)
    assert "Traceback" not in run.stderr + inspect.stderr
    assert "bus.db'" in run.stderr.splitlines()[-1]
