"""publish, enqueue, inspect, dead, check and completion, each against the file that the next one
reads."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from busline.cli import COMMANDS
from tests.cli.conftest import Project, read_until

ORDER = '{"id": "a", "cents": 5}'


def inspected(shop: Project) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(shop.call("inspect", "--json").stdout)
    return seen


def worked(shop: Project) -> None:
    assert shop.run("run", "--until-idle").returncode == 0


def dead_ids(shop: Project) -> list[str]:
    return [one["id"] for one in json.loads(shop.call("dead", "list", "--json").stdout)]


# --- publish ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("orders", ORDER),
        ("shop:app", "orders", ORDER),
        ("shop", "orders", ORDER),
        ("audit", ORDER),
        ("bills", ORDER),
    ],
)
def test_a_value_is_published_with_and_without_naming_the_app(
    shop: Project, words: tuple[str, ...]
) -> None:
    result = shop.call("publish", *words)

    assert (result.exit_code, result.stdout) == (0, "published 1\n")


def test_a_published_value_arrives_with_its_key_and_headers(shop: Project) -> None:
    shop.call(
        "publish",
        "orders",
        '{"id": "a", "cents": -1}',
        "--key",
        "k",
        "--header",
        "x=1=2",
        "--header",
        "y=",
    )
    worked(shop)

    letter = json.loads(shop.call("dead", "list", "--json").stdout)[0]

    assert (letter["key"], letter["headers"]) == ("k", [["x", "1=2"], ["y", ""]])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("orders", "{}"),
            "expected JSON that its model reads, got id: Field required; cents: Field required",
        ),
        (("orders", "no json"), "Invalid JSON"),
        (("nowhere", ORDER), "expected a topic of 'shop' (audit, bills, orders)"),
        (("orders", ORDER, "--header", "x"), "expected NAME=VALUE"),
        (
            ("orders", "@missing"),
            "'missing': expected a file of JSON lines, got No such file or directory",
        ),
        (("orders", "@."), "'.': expected a file of JSON lines, got Is a directory"),
        (("shop:app", "orders"), "Expected TOPIC and VALUE"),
        ((), "Expected TOPIC and VALUE"),
    ],
)
def test_a_wrong_publish_is_one_clear_error(
    shop: Project, words: tuple[str, ...], said: str
) -> None:
    result = shop.call("publish", *words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_every_bad_line_of_a_file_is_named_and_the_others_are_published(shop: Project) -> None:
    shop.write("lines", f'{ORDER}\nbad\n\n{{"id": 1}}\n{ORDER}')

    result = shop.call("publish", "orders", "@lines")

    assert (result.exit_code, result.stdout) == (2, "published 2\n")
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "line 2",
        "line 4",
        "2 of 4 lines were refused",
    ]
    assert inspected(shop)["app"] == "shop"


def test_bytes_that_are_no_text_are_a_bad_line(shop: Project) -> None:
    (shop.folder / "lines").write_bytes(b'"\xff"\n' + ORDER.encode() + b"\r\n")

    done = json.loads(shop.call("publish", "orders", "@lines", "--json").stdout)

    assert (done["published"], [one["line"] for one in done["refused"]]) == (1, [1])


@pytest.mark.parametrize("end", ["", "\n", f"\n{ORDER}\n"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(shop: Project, end: str) -> None:
    text = f"\ufeff{ORDER}{end}"
    shop.write("lines", text)

    for done in (
        shop.call("publish", "orders", "@lines", "--json"),
        shop.run("publish", "orders", "-", "--json", input=text),
    ):
        assert json.loads(done.stdout) == {"published": 1 + (len(end) > 1), "refused": []}


def test_many_lines_come_in_order_through_stdin(shop: Project) -> None:
    lines = "".join(f'{{"id": "one", "cents": -{number}}}\n' for number in range(1200))

    done = shop.run("publish", "orders", "-", "--json", input=lines)
    worked(shop)

    assert json.loads(done.stdout) == {"published": 1200, "refused": []}
    assert [
        json.loads(one["body"])["cents"]
        for one in json.loads(shop.call("dead", "list", "--limit", "9999", "--json").stdout)
    ] == list(range(-1, -1200, -1))


def test_a_pipe_that_stays_open_is_published_line_by_line(shop: Project) -> None:
    worker = shop.start("run")
    read_until(worker, "runs:")
    publisher = shop.start("publish", "orders", "-")
    assert publisher.stdin is not None

    publisher.stdin.write('{"id": "a", "cents": -1}\n')
    publisher.stdin.flush()

    read_until(worker, "is in the dead letters")
    assert publisher.communicate(timeout=20)[0] == "published 1\n"
    worker.terminate()
    assert worker.communicate(timeout=20) and worker.returncode == 0


def test_ctrl_c_ends_a_publish_whose_pipe_stays_open(shop: Project) -> None:
    publisher = shop.start("publish", "orders", "-")
    assert publisher.stdin is not None
    publisher.stdin.write("bad\n")
    publisher.stdin.flush()
    read_until(publisher, "line 1:")

    publisher.send_signal(signal.SIGINT)

    assert publisher.wait(timeout=20) == 130
    assert publisher.communicate()[0] == "interrupted\n"


# --- enqueue ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("add", '{"a": 1}'), ("shop:app", "add", '{"a": 1}'), ("shop", "add", '{"a": 1}')]
)
def test_a_job_is_enqueued_and_its_id_printed(shop: Project, words: tuple[str, ...]) -> None:
    result = shop.call("enqueue", *words)

    assert result.exit_code == 0
    assert len(result.stdout.split()) == 1
    assert inspected(shop)["queues"]["shop"]["waiting"] == 1


def test_a_delayed_job_is_shown_as_delayed(shop: Project) -> None:
    shop.call("enqueue", "add", '{"a": 1}', "--delay", "60")

    assert inspected(shop)["queues"]["shop"]["delayed"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "{}"), "got a: Field required"),
        (("add", '{"a": 1, "c": 2}'), "'c': expected one of a, b"),
        (("add", "[1]"), "expected arguments that it reads"),
        (("add", "x"), "expected arguments that it reads"),
        (("subtract", "{}"), "expected a task of 'shop' (add, fail, send)"),
        (("send", '{"to": "me"}', "--wait"), "expected a task that keeps its results"),
        (("add", "{}", "--wait=soon"), "'soon' is not a valid float"),
        ((), "Expected TASK and ARGUMENTS"),
    ],
)
def test_a_wrong_enqueue_is_one_clear_error_and_enqueues_nothing(
    shop: Project, words: tuple[str, ...], said: str
) -> None:
    result = shop.call("enqueue", *words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert inspected(shop)["queues"] == {}


@pytest.fixture
def served(shop: Project) -> "Any":
    worker = shop.start("run")
    read_until(worker, "runs:")
    yield shop
    worker.terminate()
    worker.communicate(timeout=20)


def test_waiting_prints_the_result_or_says_why_there_is_none(served: Project) -> None:
    result = served.call("enqueue", "add", '{"a": 1, "b": 2}', "--wait")
    before = served.call("enqueue", "--wait", "shop:app", "add", '{"a": 1, "b": 2}', "--json")
    limited = served.call("enqueue", "--wait", "20", "add", '{"a": 1}')
    failed = served.call("enqueue", "fail", '{"text": "no luck"}', "--wait")
    as_json = json.loads(
        served.call("enqueue", "fail", '{"text": "no luck"}', "--wait", "--json").stdout
    )
    late = served.call("enqueue", "add", '{"a": 1}', "--delay", "60", "--wait=0.05")

    assert (result.exit_code, result.stdout) == (0, "3\n")
    assert json.loads(before.stdout)["result"] == 3
    assert limited.stdout == "2\n"
    assert failed.exit_code == 1 and "ValueError: no luck" in failed.stderr
    assert as_json["failed"] == {"error_type": "ValueError", "error": "no luck", "attempts": 1}
    assert (
        late.exit_code == 1
        and "expected a result within 0.05 s, got none yet. Only the wait ended" in late.stderr
    )


# --- inspect, dead ---------------------------------------------------------------------------


def test_inspect_shows_queues_groups_handlers_and_dead_letters(shop: Project) -> None:
    shop.write("lines", f'{ORDER}\n{{"id": "b", "cents": -1}}\n')
    shop.call("publish", "orders", "@lines")
    shop.call("enqueue", "add", '{"a": 1}')
    worked(shop)
    shop.call("enqueue", "send", '{"to": "me"}')
    shop.call("publish", "orders", ORDER)

    seen = inspected(shop)
    text = shop.call("inspect", "shop:app").stdout

    assert seen["queues"] == {
        "mail": {
            "waiting": 1,
            "delayed": 0,
            "retrying": 0,
            "running": 0,
            "oldest": pytest.approx(0, abs=60),
        }
    }
    assert seen["groups"] == [
        {"group": "shop.bill", "topic": "orders", "behind": 1, "partitions": 16, "members": 0}
    ]
    assert (
        seen["handlers"]["bill"]["handled"],
        seen["handlers"]["bill"]["dead"],
        seen["handlers"]["add"]["handled"],
    ) == (1, 1, 1)
    assert seen["dead"] == {"bill": 1}
    assert all(
        part in text for part in ("mail", "shop.bill  orders  1", "bill     1", "sqlite:///")
    )


@pytest.fixture
def failed(shop: Project) -> Project:
    shop.call("publish", "orders", '{"id": "b", "cents": -1}')
    shop.call("enqueue", "fail", '{"text": "one"}')
    shop.call("enqueue", "fail", '{"text": "two"}')
    worked(shop)
    return shop


def test_dead_letters_are_listed_and_shown(failed: Project) -> None:
    listed = json.loads(failed.call("dead", "list", "--json").stdout)
    text = failed.call("dead", "list", "shop:app").stdout
    one = next(one for one in listed if one["handler"] == "bill")
    shown = json.loads(failed.call("dead", "show", one["id"], "--json").stdout)

    assert sorted(one["handler"] for one in listed) == ["bill", "fail", "fail"]
    header, *lines = text.splitlines()
    assert (
        header.split() == ["id", "died", "handler", "where", "reason"]
        and len(lines) == 3
        and all(" UTC " in line for line in lines)
    )
    assert "ValueError: negative" in text
    assert shown == one
    assert shown["body"] == '{"id": "b", "cents": -1}' or json.loads(shown["body"]) == {
        "id": "b",
        "cents": -1,
    }
    assert "ValueError" in failed.call("dead", "show", "shop:app", one["id"]).stdout
    assert (
        shown["causes"] == []
        and shown["traceback"] in failed.call("dead", "show", one["id"]).stdout
    )
    assert (
        len(
            json.loads(
                failed.call("dead", "list", "--handler", "fail", "--limit", "1", "--json").stdout
            )
        )
        == 1
    )


def test_an_id_that_is_not_there_is_named(failed: Project) -> None:
    for result in (
        failed.call("dead", "show", "nobody"),
        failed.call("dead", "redrive", "nobody"),
        failed.call("dead", "purge", "nobody", "--yes"),
    ):
        assert result.exit_code in (1, 2)
        assert "'nobody': expected a dead letter's id" in result.stderr


def test_redriving_runs_the_chosen_again(failed: Project) -> None:
    one = dead_ids(failed)[0]

    by_id = json.loads(failed.call("dead", "redrive", one, "--json").stdout)
    every = failed.call("dead", "redrive", "shop:app", "--all")

    assert by_id == {"redriven": 1, "refused": []}
    assert (every.exit_code, every.stdout) == (0, "redriven 2\n")
    assert dead_ids(failed) == []
    worked(failed)
    assert len(dead_ids(failed)) == 3


def test_redriving_and_purging_need_one_choice(failed: Project) -> None:
    for words in (
        ("redrive",),
        ("purge", "--yes"),
        ("redrive", "id", "--all"),
        ("redrive", "--all", "--handler", "fail"),
    ):
        assert failed.call("dead", *words).exit_code == 2
    assert len(dead_ids(failed)) == 3


def test_purging_by_handler_leaves_the_others(failed: Project) -> None:
    refused = failed.call("dead", "purge", "--handler", "fail")
    purged = failed.call("dead", "purge", "--handler", "fail", "--yes")
    again = failed.call("dead", "purge", "--all", "--yes", "--json")

    assert refused.exit_code == 2 and "Add --yes." in refused.stderr
    assert purged.stdout == "purged 2\n"
    assert json.loads(again.stdout) == {"purged": 1, "refused": []}
    assert failed.call("dead", "list").stdout == "no dead letters\n"


# --- check, completion, start ----------------------------------------------------------------


def test_check_prints_the_plan(shop: Project) -> None:
    text = shop.call("check").stdout
    plan = json.loads(shop.call("check", "shop:app", "--json").stdout)

    assert "subscriber bill: orders -> bills" in text
    assert "group shop.bill, order partition, " in text and "at once, no retry" in text
    assert "task send: queue mail" in text
    assert "streams: sqlite:////" in text and "(embedded)" in text
    assert plan["engines"]["streams"]["by"] == "embedded" and plan["engines"]["streams"][
        "engine"
    ].startswith("sqlite:////")
    assert plan["subscribers"][0]["retry"]["attempts"] == 1 and plan["subscribers"][0]["retry"][
        "on"
    ] == ["Exception"]
    assert isinstance(plan["subscribers"][0]["concurrency"], int)
    assert [one["handler"] for one in plan["tasks"]] == ["add", "fail", "send"]
    assert plan["publishes"] == ["audit"]


def test_check_says_who_named_the_engines_without_their_secrets(shop: Project) -> None:
    done = shop.run(
        "check",
        env={
            "BUSLINE_STREAMS": "memory://user:secret@here",
            "BUSLINE_JOBS": "memory://user:secret@here",
        },
    )

    assert "streams: memory:// (named by BUSLINE_STREAMS)" in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shop: Project, shell: str) -> None:
    result = shop.call("completion", shell)

    assert result.exit_code == 0
    assert "_BUSLINE_COMPLETE" in result.stdout


def test_the_commands_complete(shop: Project) -> None:
    done = shop.run(
        env={"_BUSLINE_COMPLETE": "bash_complete", "COMP_WORDS": "busline ", "COMP_CWORD": "1"}
    )

    assert {line.split(",")[1] for line in done.stdout.split()} == set(COMMANDS)


@pytest.mark.parametrize("words", [(), ("-h",), *((command, "--help") for command in COMMANDS)])
def test_every_command_explains_itself(shop: Project, words: tuple[str, ...]) -> None:
    result = shop.call(*words)

    assert "Usage:" in result.output


def test_the_version_is_shown_without_importing_what_is_slow(tmp_path: Path) -> None:
    code = (
        "import sys; from busline.cli import cli; cli(['--version'], standalone_mode=False);"
        " print(*sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    version, modules = done.stdout.splitlines()
    assert version.startswith("busline ")
    assert not {"pydantic", "asyncio", "anyio", "busline.app"} & set(modules.split())


def test_an_error_that_nobody_foresaw_leaves_with_70(shop: Project) -> None:
    shop.write(
        "odd.py",
        'from busline import App, Topic\nodd = Topic("odd", int, key=lambda value: 1 / value)\napp'
        ' = App("odd", publishes=[odd])\n',
    )

    done = shop.run("publish", "odd:app", "odd", "0")

    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr


def test_check_asks_a_server_beside_a_file(tmp_path: Path) -> None:
    code = """
from busline import App
from busline.topic import Topic
app = App("shop", streams="sqlite:///bus.db", jobs="redis://127.0.0.1:9")
@app.subscriber(Topic("orders", int))
async def bill(order: int) -> None: ...
@app.task
async def send() -> None: ...
"""
    (tmp_path / "mixed.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "busline", "check", "mixed:app"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert done.returncode == 69 and not (tmp_path / "bus.db").exists()
