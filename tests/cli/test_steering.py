"""jobs, queues, peek, dead edit, and the options of enqueue: what an operator sees and mends, on
each engine."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from busline.cli.find import find
from busline.core.address import Address
from busline.core.message import DeadLetter
from busline.core.outcome import Rejected
from busline.core.ports import Subscription
from busline.testing.clock import SimClock
from busline.testing.contract import Recorder, message
from busline.transports.sqlite import SqliteTransport
from tests.cli.conftest import Project
from tests.servers import Servers
from tests.servers.kafka import no_topics

STEERED = """
    from busline import App, Retry, Topic

    orders = Topic("orders", int, partitions=1)
    app = App("steered", retry=Retry(1))


    @app.subscriber(orders)
    async def bill(number: int) -> None:
        if number < 0:
            raise ValueError("negative") from KeyError("why")


    @app.task(queue="mail")
    async def send(to: str, times: int = 1) -> str:
        if times < 0:
            raise ValueError("negative " + "x" * 300)
        return to
"""


@pytest.fixture(params=["sqlite", pytest.param("servers", marks=pytest.mark.server)])
def steered(
    request: pytest.FixtureRequest,
    project: Project,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    project.write("steered.py", STEERED)
    project.write("pyproject.toml", '[tool.busline]\napp = "steered:app"\n')
    if request.param == "servers":
        kafka, redis = servers.pair("kafka+redis", Path())
        asyncio.run(no_topics(*kafka.servers))  # type: ignore[attr-defined]  # an engine of Kafka
        monkeypatch.setenv("BUSLINE_STREAMS", str(kafka))
        monkeypatch.setenv("BUSLINE_JOBS", str(redis))
    return project


def data(project: Project, *words: str) -> Any:
    result = project.call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def works(project: Project) -> None:
    done = project.run("run", "--until-idle", "--create-topics", env=given())
    assert done.returncode == 0, done.stderr
    assert "done: : " not in done.stderr


def given() -> dict[str, str]:
    return {
        name: os.environ[name] for name in ("BUSLINE_STREAMS", "BUSLINE_JOBS") if name in os.environ
    }


def test_a_job_is_enqueued_with_all_its_options_and_seen(steered: Project) -> None:
    words = (
        "enqueue",
        "send",
        '{"to": "é"}',
        "--id",
        "a1",
        "--unique",
        "u",
        "--queue",
        "mail",
        "--header",
        "k=v=w",
    )
    assert data(steered, *words, "--at", "2126-12-01T08:00+01:00") == {"id": "a1", "created": True}
    assert data(steered, "enqueue", "send", '{"to": "b"}', "--unique", "u") == {
        "id": "a1",
        "created": False,
    }

    (seen,) = data(steered, "peek", "mail")
    assert (seen["id"], seen["task"], seen["attempt"], seen["due_at"]) == (
        "a1",
        "send",
        1,
        "2126-12-01T07:00:00+00:00",
    )
    assert (seen["headers"], seen["body"]) == ([["k", "v=w"]], {"to": "é"})
    assert "é" in steered.call("peek", "mail").stdout and steered.call(
        "peek", "mail", "--raw"
    ).stdout.startswith('{"to":"é"')
    assert data(steered, "jobs", "show", "a1")["state"] == "delayed"
    assert data(steered, "queues", "list")[0]["delayed"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("enqueue", "send", '{"to": "a"}', "--at", "tomorrow"),
            "'at': expected a time with its zone",
        ),
        (("enqueue", "send", '{"to": "a"}', "--at", "2126-12-01T08:00"), "zone"),
        (("enqueue", "send", '{"to": "a"}', "--queue", "none"), "'none': expected a queue"),
        (("enqueue", "send", '{"to": "a"}', "--header", "x"), "expected NAME=VALUE"),
        (("peek", "none"), "'none': expected a topic or queue of 'steered' (mail, orders)"),
        (("queues", "purge", "none", "--yes"), "'none': expected a queue of 'steered' (mail)"),
        (("queues", "purge", "mail"), "Add --yes."),
        (("jobs", "show", "nobody"), "'nobody': expected a job that is known"),
        (("dead", "edit", "nobody", "1"), "'nobody': expected a dead letter's id"),
        (("peek",), "Expected one NAME"),
    ],
)
def test_what_is_wrong_is_one_clear_error(
    project: Project, words: tuple[str, ...], said: str
) -> None:
    project.write("steered.py", STEERED)
    project.write("pyproject.toml", '[tool.busline]\napp = "steered:app"\n')

    result = project.call(*words)

    assert result.exit_code == 2 and said in result.stderr


def test_a_queue_is_listed_and_purged(steered: Project) -> None:
    for n in range(3):
        steered.call("enqueue", "send", '{"to": "a"}', "--id", f"j{n}")

    assert (
        "mail" in steered.call("queues", "list").stdout
        and data(steered, "queues", "list")[0]["waiting"] == 3
    )
    assert [one["id"] for one in data(steered, "peek", "queue:mail", "--limit", "2")] == [
        "j0",
        "j1",
    ]
    assert data(steered, "queues", "purge", "mail", "--yes") == {"purged": 3}
    assert (
        data(steered, "peek", "mail") == []
        and steered.call("peek", "mail").stdout == "nothing there\n"
    )
    assert data(steered, "enqueue", "send", '{"to": "a"}', "--id", "j0")["created"]


def test_what_died_is_told_mended_and_runs_again(steered: Project) -> None:
    steered.call("enqueue", "send", '{"to": "a", "times": -1}', "--id", "j")
    works(steered)
    assert steered.call("publish", "orders", "--", "-1").exit_code == 0
    works(steered)
    job, record = sorted(
        data(steered, "dead", "list"), key=lambda one: one["handler"], reverse=True
    )

    assert [one["body"] for one in data(steered, "peek", "orders")] == [-1]
    told = steered.call("dead", "show", record["id"]).stdout
    assert "from        KeyError: 'why'" in told and told.rstrip().endswith("ValueError: negative")
    assert record["causes"] == [{"error_type": "KeyError", "error": "'why'"}]
    assert data(steered, "jobs", "show", "j")["dead"]["traceback"] == job["traceback"]
    assert any(line.endswith("xxx...") for line in steered.call("dead", "list").stdout.splitlines())

    for id, wrong, right in ((job["id"], '{"to": 1}', '{"to": "b"}'), (record["id"], '"x"', "7")):
        refused = steered.call("dead", "edit", id, wrong)
        assert refused.exit_code == 2 and "Nothing was changed." in refused.stderr
        assert data(steered, "dead", "edit", id, right) == {"edited": id}
    assert sorted(one["body"] for one in data(steered, "dead", "list")) == ["7", '{"to": "b"}']
    assert data(steered, "dead", "redrive", "--all")["redriven"] == 2
    works(steered)
    assert data(steered, "dead", "list") == []
    assert data(steered, "jobs", "show", "j") == {
        "id": "j",
        "state": "succeeded",
        "attempt": None,
        "result": "b",
    }


def test_a_letter_is_edited_in_an_editor(steered: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    steered.call("enqueue", "send", '{"to": "a", "times": -1}', "--id", "j")
    works(steered)
    monkeypatch.setattr("busline.cli.dead.can_ask", lambda: True)
    monkeypatch.setenv("EDITOR", "sed -i s/-1/2/")

    assert steered.call("dead", "edit", "j").stdout == "edited j\n"

    assert json.loads(data(steered, "dead", "show", "j")["body"]) == {"to": "a", "times": 2}


async def _let_die(path: Path, count: int) -> Sequence[DeadLetter]:
    queue, clock = Address("queue", "mail"), SimClock()
    async with SqliteTransport(path) as engine:
        await engine.publish(queue, [message(b"{}", task="send") for _ in range(count)])
        async with engine.subscribe(Subscription((queue,)), Recorder(clock)) as receiver:
            left = count
            while left:
                got = await receiver.receive(1000)
                for one in got:
                    one.handler = "send"
                await receiver.settle([(one, Rejected("no", ValueError("why"))) for one in got])
                left -= len(got)
        return await engine.inspector.dead(limit=1)


def test_ten_thousand_letters_are_listed_and_what_is_left_out_is_said(project: Project) -> None:
    project.write("steered.py", STEERED)
    (project.folder / ".busline").mkdir()
    asyncio.run(_let_die(project.folder / ".busline" / "bus.db", 10_000))
    find("steered:app")

    listed = project.call("dead", "list", "steered:app", "--limit", "20000")
    some = project.call("dead", "list", "steered:app")

    assert len(listed.stdout.splitlines()) == 10_001 and not listed.stderr
    assert len(some.stdout.splitlines()) == 101 and "the first 100; there are more" in some.stderr
