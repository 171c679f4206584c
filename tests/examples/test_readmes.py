"""What the pages of the examples say to type works as it stands, on a local file."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.test_blocks import SHELL, environment
from tests.docs.test_pages import PAGES, ROOT, blocks

SHOWN = [page for page in PAGES if (ROOT / "examples") in page.parents and blocks(page, "sh")]


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.parent.name)
def test_the_commands_work(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    kept = environment() | {"BUSLINE_HOME": str(tmp_path / "home")}
    text = SHELL + f"PYTHONPATH=$PYTHONPATH{os.pathsep}{ROOT}\n" + "".join(blocks(page, "sh"))

    done = subprocess.run(
        ["bash"], input=text, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
