"""inspect and dead where two Apps share an engine, and where a function was renamed: an App sees
and changes its own."""

import asyncio
import json
from typing import Any

import click
import pytest

from busline import App
from busline.cli.find import find
from busline.runtime.idle import until_idle
from tests.cli.conftest import Project

SOURCE = """
    from busline import App, Retry, Topic

    app = App("{app}", retry=Retry(1))


    @app.subscriber(Topic("{app}-orders", int), group={group!r})
    async def {handler}(n: int) -> None:
        raise ValueError(n)


    @app.task
    async def {task}(n: int) -> None:
        raise ValueError(n)
"""


def declare(
    project: Project,
    app: str,
    *,
    handler: str = "handle",
    task: str = "send",
    group: str | None = None,
    module: str = "",
) -> None:
    project.write(
        f"{module or app}.py", SOURCE.format(app=app, handler=handler, task=task, group=group)
    )


def let_die(app: str, records: int, jobs: int, module: str = "") -> None:
    """So many of each are dead then."""
    asyncio.run(_let_die(find(f"{module or app}:app"), records, jobs))


async def _let_die(app: App, records: int, jobs: int) -> None:
    (subscriber,), (task,) = app.all_subscribers(), app.all_tasks()
    async with app.running():
        for n in range(records):
            await app.publish(subscriber.source.parts[0][0], n)
        for n in range(jobs):
            await task.enqueue(n)
        await until_idle(app.bus())


def data(project: Project, *words: str) -> Any:
    return json.loads(project.call(*words, "--json").stdout)


def letters(project: Project, app: str, *words: str) -> list[tuple[str, str]]:
    """What is listed: the group or queue, and the handler."""
    return sorted(
        (one["group"] or one["address"], one["handler"])
        for one in data(project, "dead", "list", f"{app}:app", *words)
    )


@pytest.fixture
def two(project: Project) -> Project:
    """Two Apps whose handlers have equal names: of alpha 1 record and 2 jobs are dead, of beta 2
    and 1."""
    for app, records, jobs in (("alpha", 1, 2), ("beta", 2, 1)):
        declare(project, app)
        let_die(app, records, jobs)
    return project


ALPHA = [("alpha", "send")] * 2 + [("alpha.handle", "handle")]
BETA = [("beta", "send")] + [("beta.handle", "handle")] * 2


def test_an_app_lists_its_own_and_all_when_asked(two: Project) -> None:
    assert letters(two, "alpha") == ALPHA
    assert letters(two, "beta", "--handler", "handle") == BETA[1:]
    assert letters(two, "beta", "--all-apps") == ALPHA + BETA
    assert "alpha-orders/" in two.call("dead", "list", "beta:app", "--all-apps").stdout


@pytest.mark.parametrize("words", [("--all",), ("--handler", "handle", "--handler", "send")])
@pytest.mark.parametrize("command", [("purge", "--yes"), ("redrive",)])
def test_an_app_changes_its_own(
    two: Project, command: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = two.call("dead", command[0], "alpha:app", *command[1:], *words)

    assert (done.exit_code, done.stdout.split()[1]) == (0, "3")
    assert (letters(two, "alpha"), letters(two, "beta")) == ([], BETA)
    depth = data(two, "inspect", "beta:app", "--all-apps")
    assert depth["queues"] == {}
    assert set(depth["others"]["queues"]) == (
        {"alpha", "~alpha.handle"} if command == ("redrive",) else set()
    )


def test_letters_of_others_are_purged_by_name_alone(two: Project) -> None:
    (id,) = (one["id"] for one in data(two, "dead", "list", "beta:app", "--handler", "send"))

    refused = two.call("dead", "purge", "alpha:app", id, "--yes")
    every = two.call("dead", "purge", "alpha:app", "--all", "--all-apps", "--yes")

    assert (refused.exit_code, refused.stdout) == (1, "purged 0\n")
    assert (
        f"'{id}': expected a dead letter of 'alpha', got one of the queue 'beta'. Add --all-apps"
        in refused.stderr
    )
    assert every.exit_code == 2 and "--handler NAME --all-apps" in every.stderr
    assert letters(two, "beta") == BETA
    assert data(two, "dead", "purge", "alpha:app", id, "--all-apps", "--yes") == {
        "purged": 1,
        "refused": [],
    }
    assert data(
        two, "dead", "purge", "alpha:app", "--handler", "handle", "--all-apps", "--yes"
    ) == {"purged": 3, "refused": []}
    assert letters(two, "alpha", "--all-apps") == ALPHA[:2]


def test_a_letter_is_not_redriven_to_where_the_app_reads_nothing(two: Project) -> None:
    ids = [one["id"] for one in data(two, "dead", "list", "beta:app")]

    for words in (
        (*ids,),
        (*ids, "--all-apps"),
        ("--handler", "handle", "--handler", "send", "--all-apps"),
    ):
        done = two.call("dead", "redrive", "alpha:app", *words)
        assert done.exit_code == 1 and letters(two, "beta") == BETA
        assert (
            "the App whose function has group='beta.handle'" in done.stderr
            and "the App whose tasks have queue='beta'" in done.stderr
        )
    assert letters(two, "alpha") == []  # its own were among the last
    assert two.call("dead", "redrive", "alpha:app", "--all", "--all-apps").exit_code == 2


def test_a_letter_of_another_app_is_shown_when_asked(two: Project) -> None:
    (id,) = (one["id"] for one in data(two, "dead", "list", "beta:app", "--handler", "send"))

    assert (
        f"'{id}': expected a dead letter of 'alpha'"
        in two.call("dead", "show", "alpha:app", id).stderr
    )
    assert data(two, "dead", "show", "alpha:app", id, "--all-apps")["handler"] == "send"


def test_inspect_shows_an_app_its_own_and_all_when_asked(two: Project) -> None:
    two.call("enqueue", "beta:app", "send", '{"n": 9}')
    mine, every = data(two, "inspect", "alpha:app"), data(two, "inspect", "alpha:app", "--all-apps")

    assert (
        {name: one["dead"] for name, one in mine["handlers"].items()}
        == mine["dead"]
        == {"handle": 1, "send": 2}
    )
    assert (mine["queues"], [one["group"] for one in mine["groups"]]) == ({}, ["alpha.handle"])
    others = every.pop("others")
    assert every == mine
    assert set(others["queues"]) == {"beta"} and [one["group"] for one in others["groups"]] == [
        "beta.handle"
    ]
    assert sorted((one["queue"], one["handler"], one["dead"]) for one in others["handlers"]) == [
        ("beta", "send", 1),
        ("~beta.handle", "handle", 2),
    ]
    assert sorted((one["address"], one["group"], one["dead"]) for one in others["dead"]) == [
        ("beta", None, 1),
        ("beta-orders", "beta.handle", 2),
    ]
    assert "dead of other Apps" in two.call("inspect", "alpha:app", "--all-apps").stdout


def test_the_question_before_purging_says_what_would_be_forgotten(
    two: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def ask(text: str, **_: object) -> None:
        asked.append(text)
        raise click.Abort

    monkeypatch.setattr("busline.cli.dead.can_ask", lambda: True)
    monkeypatch.setattr(click, "confirm", ask)

    assert two.call("dead", "purge", "alpha:app", "--all").exit_code == 1

    assert asked[0].startswith("Forget 3 dead letters: ") and " UTC for ever?" in asked[0]
    assert (
        "1 of 'handle' (group 'alpha.handle' on 'alpha-orders')" in asked[0]
        and "2 of 'send' (queue 'alpha')" in asked[0]
    )
    assert letters(two, "alpha") == ALPHA


# --- renamed functions -----------------------------------------------------------------------


def test_what_a_renamed_function_left_is_shown_and_changed_by_name(project: Project) -> None:
    declare(project, "shop", module="old")
    let_die("shop", 1, 2, module="old")
    declare(project, "shop", handler="bill", task="mail", module="new")
    left = [("shop", "send")] * 2 + [("shop.handle", "handle")]

    assert letters(project, "new") == left and data(project, "inspect", "new:app")["dead"] == {
        "handle": 1,
        "send": 2,
    }
    every = project.call("dead", "purge", "new:app", "--all", "--yes")
    assert every.stdout == "purged 0\n" and "note: 2 of 'send' (queue 'shop') stay" in every.stderr
    by_name = project.call("dead", "redrive", "new:app", "--handler", "handle", "--handler", "send")
    assert (
        by_name.exit_code == 1
        and "the App whose function has group='shop.handle'" in by_name.stderr
    )
    assert (
        letters(project, "new") == left[2:]
        and data(project, "inspect", "new:app")["queues"]["shop"]["waiting"] == 2
    )
    assert data(project, "dead", "purge", "new:app", "--handler", "handle", "--yes") == {
        "purged": 1,
        "refused": [],
    }


def test_a_group_hands_what_it_left_to_its_renamed_function(project: Project) -> None:
    declare(project, "shop", group="billing", module="old")
    let_die("shop", 1, 0, module="old")
    declare(project, "shop", handler="bill", group="billing", module="new")

    assert data(project, "dead", "redrive", "new:app", "--handler", "handle") == {
        "redriven": 1,
        "refused": [],
    }

    let_die("shop", 0, 0, module="new")
    assert letters(project, "new") == [("billing", "bill")]
