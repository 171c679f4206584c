"""Where the App is looked for, and what is said when it is not found."""

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import SHOP, Project

TASKS = """
    from {app} import app

    @app.task
    async def ping(n: int) -> int:
        return n
"""
APP = """
    from busline import App

    app = App("house")
    import {tasks}  # noqa: E402
"""

# folder of the package, names of the modules as they import each other, where it is started, what
# is said
LAYOUTS = {
    "flat": ("", "app", "tasks", ".", "app:app"),
    "package": ("pkg", "pkg.app", "pkg.tasks", ".", "pkg.app:app"),
    "src": ("src/pkg", "pkg.app", "pkg.tasks", ".", "pkg.app:app"),
    "deep": ("pkg/sub", "pkg.sub.app", "pkg.sub.tasks", ".", "pkg.sub.app:app"),
    "inside the package": ("pkg", "pkg.app", "pkg.tasks", "pkg", "app:app"),
    "inside the package, whole name": ("pkg", "pkg.app", "pkg.tasks", "pkg", "pkg.app:app"),
    "inside a deep package": ("pkg/sub", "pkg.sub.app", "pkg.sub.tasks", "pkg/sub", "app"),
    "inside src": ("src/pkg", "pkg.app", "pkg.tasks", "src/pkg", "app:app"),
    "between": ("pkg/sub", "pkg.sub.app", "pkg.sub.tasks", "pkg", "sub.app:app"),
}


STARTS = [
    *((layout, False) for layout in LAYOUTS),
    *((layout, True) for layout in ("flat", "src", "inside the package", "inside src")),
]


@pytest.mark.parametrize(
    ("layout", "installed"),
    STARTS,
    ids=[f"{layout}{', installed' * installed}" for layout, installed in STARTS],
)
def test_every_layout_finds_one_app_with_its_tasks(
    project: Project, layout: str, installed: bool
) -> None:
    folder, app, tasks, at, path = LAYOUTS[layout]
    prefix = f"{folder}/" if folder else ""
    project.write(f"{prefix}app.py", APP.format(tasks=tasks))
    project.write(f"{prefix}tasks.py", TASKS.format(app=app))
    package = folder.removeprefix("src/")
    for depth in range(len(package.split("/")) if package else 0):
        project.write(
            "/".join([*folder.split("/")[: len(folder.split("/")) - depth], "__init__.py"])
        )

    done = project.run("check", path, "--json", at=at, installed=installed)

    assert done.returncode == 0, done.stderr
    assert [one["handler"] for one in json.loads(done.stdout)["tasks"]] == ["ping"]


def test_a_module_under_two_names_is_named(project: Project) -> None:
    project.write("pkg/__init__.py")
    project.write(
        "pkg/app.py",
        "from busline import App\napp = App('house')\nimport tasks\nimport pkg.tasks\n",
    )
    project.write("pkg/tasks.py")

    done = project.run("check", "app:app", at="pkg")

    assert done.returncode == 2
    assert "as 'pkg.tasks' and as 'tasks'" in done.stderr
    assert "Import it as pkg.tasks everywhere" in done.stderr


def test_a_folder_in_a_package_does_not_hide_the_standard_library(project: Project) -> None:
    project.write("pkg/__init__.py")
    project.write("pkg/colorsys.py")
    project.write(
        "pkg/app.py",
        "from busline import App\nimport colorsys\napp = App('house')\nassert hasattr(colorsys,"
        " 'rgb_to_hsv')\n",
    )

    assert project.run("check", "app", at="pkg").returncode == 0
    assert project.run("check", "app", at="pkg", installed=True).returncode == 0


def test_flat_imports_work_also_in_a_folder_that_is_a_package(project: Project) -> None:
    project.write("pkg/__init__.py")
    project.write("pkg/app.py", "from busline import App\nimport limits\napp = App(limits.NAME)\n")
    project.write("pkg/limits.py", "NAME = 'flat'\n")

    assert project.run("check", "app", at="pkg").stdout.startswith("flat\n")


def test_a_job_of_another_module_is_served_by_the_app_of_either_name(project: Project) -> None:
    project.write("pkg/__init__.py")
    project.write("pkg/app.py", APP.format(tasks="pkg.tasks"))
    project.write("pkg/tasks.py", TASKS.format(app="pkg.app"))
    project.write(
        "send.py",
        "import asyncio\nfrom pkg.tasks import app, ping\nasync def main():\n    async with app:\n "
        "       await ping.enqueue(1)\nasyncio.run(main())\n",
    )
    subprocess.run(
        [sys.executable, "send.py"], cwd=project.folder, env=project.environment(), check=True
    )

    done = project.run("run", "app:app", "--until-idle", at="pkg")

    assert done.returncode == 0 and "ping: handled 1" in done.stderr


def test_a_task_of_a_script_is_served_under_its_module_name(project: Project) -> None:
    main = """
        import asyncio
        from busline import App
        app = App("house")

        @app.task
        async def ping(n: int) -> int:
            return n

        async def main():
            async with app:
                await ping.enqueue(1)

        if __name__ == "__main__":
            asyncio.run(main())
    """
    project.write("script.py", main)
    subprocess.run(
        [sys.executable, "script.py"], cwd=project.folder, env=project.environment(), check=True
    )

    assert "ping: handled 1" in project.run("run", "script:app", "--until-idle").stderr


# --- the default -----------------------------------------------------------------------------


def test_pyproject_names_the_app_also_from_a_folder_below(shop: Project) -> None:
    shop.write("deep/er/x")

    done = shop.run("check", "--json", at="deep/er")

    assert json.loads(done.stdout)["app"] == "shop"


def test_the_environment_goes_before_pyproject(shop: Project) -> None:
    shop.write("other.py", "from busline import App\nmine = App('other')\n")

    assert (
        json.loads(shop.run("check", "--json", env={"BUSLINE_APP": "other:mine"}).stdout)["app"]
        == "other"
    )


def test_no_app_at_all_names_the_ways(project: Project) -> None:
    result = project.call("check")

    assert result.exit_code == 2
    assert "'APP': expected module:app, got nothing." in result.stderr
    assert "BUSLINE_APP" in result.stderr


def test_a_broken_pyproject_is_named(project: Project) -> None:
    project.write("pyproject.toml", "[tool")

    result = project.call("check")

    assert result.exit_code == 2
    assert "pyproject.toml': expected a TOML file" in result.stderr


# --- wrong paths -----------------------------------------------------------------------------

WRONG = {
    "shop/main:app": "expected module:app, got another form",
    "shop:app:x": "expected module:app, got another form",
    "nothing:app": "got no module 'nothing' in",
    "shop.py": "expected a module's name, got a file's. Write shop:app.",
    "shop:other": "expected an App (the module has app), got nothing of that name",
    "shop:orders": "expected an App (the module has app), got a Topic",
    "two": "expected one App in the module, got 2 (one, two)",
    "none": "expected one App in the module, got none",
}


@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_path_is_one_clear_error(shop: Project, path: str) -> None:
    shop.write("two.py", "from busline import App\none, two = App('one'), App('two')\n")
    shop.write("none.py")

    result = shop.call("check", path)

    assert result.exit_code == 2
    assert f"'{path}'" in result.stderr
    assert WRONG[path] in result.stderr
    assert "Traceback" not in result.stderr


def test_an_attribute_may_be_nested(project: Project) -> None:
    project.write("nest.py", "from busline import App\nclass Site:\n    bus = App('nested')\n")

    assert json.loads(project.call("check", "nest:Site.bus", "--json").stdout)["app"] == "nested"


# --- modules that fail -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("from shop import nobody", "cannot import name 'nobody'"),
    ],
)
def test_a_module_that_fails_shows_its_own_traceback(shop: Project, text: str, said: str) -> None:
    shop.write("broken.py", f"\n{text}\n")

    done = shop.run("check", "broken:app")

    assert done.returncode == 2
    assert said in done.stderr
    assert 'broken.py", line 2' in done.stderr
    assert "busline/cli" not in done.stderr and "importlib" not in done.stderr
    assert "could not import app" not in done.stderr


def test_a_package_that_fails_shows_its_own_traceback(project: Project) -> None:
    project.write("pkg/__init__.py", "raise RuntimeError('closed')\n")
    project.write("pkg/app.py", SHOP)

    done = project.run("check", "pkg.app:app")

    assert done.returncode == 2
    assert "RuntimeError: closed" in done.stderr
    assert 'pkg/__init__.py", line 1' in done.stderr


def test_an_error_of_busline_in_a_module_names_the_place_without_a_traceback(
    project: Project,
) -> None:
    project.write(
        "twice.py",
        "from busline import App, Router\nrouter ="
        " Router()\nApp('a').include(router)\nApp('b').include(router)\n",
    )

    done = project.run("check", "twice:app")

    assert done.returncode == 2
    assert "twice.py, line 4" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_mistake_of_an_app_is_said_at_once(project: Project) -> None:
    project.write(
        "wrong.py",
        """
        from busline import App, Topic

        app = App("wrong")
        bad = Topic("a b", str)

        @app.subscriber(bad)
        async def nothing() -> None: ...

        @app.subscriber(bad, concurrency=0)
        async def never(value: str) -> None: ...
        """,
    )

    result = project.call("check", "wrong:app")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert all(
        part in result.stderr
        for part in ("'a b'", "wrong.nothing", "'concurrency' at wrong.never", "wrong.py, line 10")
    )
