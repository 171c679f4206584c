"""What the pages of the examples say to type works as it stands, on a local file."""

import os
import subprocess
import sys
from pathlib import Path
from shlex import split

import pytest

from tests.docs.test_pages import ROOT, blocks

PAGES = ("README.md", "both_worlds/README.md")


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_work(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "BUSLINE_HOME": str(tmp_path / "home")}
    lines = [line for text in blocks(ROOT / "examples" / name, "sh") for line in text.splitlines()]

    for line in lines:
        done = subprocess.run([sys.executable, "-m", *split(line)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, line + done.stderr

    assert lines
