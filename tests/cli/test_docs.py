"""The document of an App, from the command line."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.cli.conftest import Project


def test_it_is_json_by_default_and_yaml_on_request(shop: Project) -> None:
    shown = json.loads(shop.call("docs").stdout)

    assert shown["asyncapi"] == "3.1.0" and shown["info"] == {"title": "shop", "version": "0.0.0"}
    assert yaml.safe_load(shop.call("docs", "--format", "yaml").stdout) == shown
    assert not (shop.folder / ".busline").exists()  # no engine was opened


def test_it_goes_to_a_file_with_a_version(shop: Project) -> None:
    assert shop.call("docs", "--output", "shop.json", "--app-version", "1.4").stdout == ""

    assert json.loads((shop.folder / "shop.json").read_text())["info"]["version"] == "1.4"


def test_a_file_that_cannot_be_written_is_named(shop: Project) -> None:
    result = shop.call("docs", "--output", "none/shop.json")

    assert result.exit_code == 2
    assert (
        "'none/shop.json': expected a file that can be written, got No such file or directory. Name"
        " another with --output." in result.stderr
    )


@pytest.mark.parametrize("form", ["json", "html", "yaml"])
def test_the_bytes_are_the_same_in_every_locale(form: str, shop: Project) -> None:
    with (shop.folder / "shop.py").open("a", encoding="utf-8") as file:
        about = (  # which newer Pythons refuse as a literal docstring
            "Überall dasselbe, auch \\ud83d."
        )
        file.write(
            f'\n\n@app.task\nasync def tell() -> None: ...\n\n\ntell.function.__doc__ = "{about}"\n'
        )
    made = {
        written(shop, form, {}),
        written(shop, form, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    }

    assert len(made) == 1 and "Überall".encode() in made.pop()


def written(shop: Project, form: str, around: dict[str, str]) -> bytes:
    """What the command prints, and writes into a file."""
    command = [sys.executable, "-m", "busline", "docs", "shop:app", "--format", form]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("LC_")
    } | around
    printed = subprocess.run(
        command, cwd=shop.folder, env=environment, capture_output=True, check=True
    ).stdout
    subprocess.run([*command, "--output", "made"], cwd=shop.folder, env=environment, check=True)
    assert (shop.folder / "made").read_bytes() == printed
    return printed
