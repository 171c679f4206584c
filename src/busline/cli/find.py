"""Finding the App: `module:app`, or what BUSLINE_APP or [tool.busline] in a pyproject.toml
names."""

import importlib
import inspect
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import busline
from busline.app import App
from busline.assembly import Run
from busline.cli.fail import USAGE, Fail
from busline.core.errors import BuslineError, ConfigError, wrong
from busline.core.options import HEARD

FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:([^\W\d]\w*(\.[^\W\d]\w*)*)?)?")
PACKAGE = str(Path(__file__).parent.parent)
LIBRARIES = (PACKAGE, sys.prefix, sys.base_prefix, "<")  # where what stands is not the user's
UNNAMED = (
    "Name it, set BUSLINE_APP, or write app = 'module:app' under [tool.busline] in pyproject.toml."
)


def find(path: str | None) -> App:
    """The App. Ends the command with one clear text, or the user's own traceback, if there is
    none."""
    mistakes: list[str] = []
    hearing = HEARD.set(lambda said: mistakes.append(said + _at(traceback.extract_stack())))
    try:
        app = _load(path, Path.cwd()) if path else _load(*_default())
        if mistakes:
            raise Fail("\n".join([*mistakes, *_problems(app)]), USAGE)
        app.setting.patience = (
            0.0  # a command says at once what is away; `run` has a wait of its own
        )
        return app
    except ConfigError as error:
        raise Fail(str(error), USAGE) from error
    finally:
        HEARD.reset(hearing)


def named_app(word: str) -> bool:
    """Whether a word reads as `module:app` or `module:`."""
    return ":" in word and FORM.fullmatch(word) is not None


def _default() -> tuple[str, Path]:
    if path := os.environ.get("BUSLINE_APP"):
        return path, Path.cwd()
    for folder in (Path.cwd(), *Path.cwd().parents):
        if path := _configured(folder / "pyproject.toml"):
            return path, folder
    raise ConfigError([wrong("APP", "module:app", "nothing", UNNAMED)])


def _configured(file: Path) -> str | None:
    try:
        found = tomllib.loads(file.read_text()).get("tool", {}).get("busline", {}).get("app")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError([wrong(file, "a TOML file", str(error), "Correct it.")]) from error
    return None if found is None else str(found)


def _load(path: str, folder: Path) -> App:
    if not FORM.fullmatch(path):
        remedy = "Write the module with dots, a colon and the App's name: shop.main:app."
        raise ConfigError([wrong(path, "module:app", "another form", remedy)])
    name, _, attribute = path.partition(":")
    name, root = _anchored(name, folder)
    _search(
        [root, *([folder / "src"] if _holds(folder / "src", name) else [])], [folder, Path.cwd()]
    )
    module = _imported(name, path)
    _refuse_doubles(path, root)
    return _attribute(module, attribute, path)


# --- where it is looked for ------------------------------------------------------------------


def _anchored(name: str, folder: Path) -> tuple[str, Path]:
    """The module's full name and the folder above its package: started inside a package, `app` is
    `package.app`, or it would be imported twice."""
    root, packages = folder, list[str]()
    while (root / "__init__.py").exists() and root.name.isidentifier() and root != root.parent:
        packages.insert(0, root.name)
        root = root.parent
    inside = folder.joinpath(*name.split("."))
    found = inside.with_suffix(".py").exists() or (inside / "__init__.py").exists()
    return (".".join([*packages, name]) if found else name), root


def _holds(folder: Path, name: str) -> bool:
    top = folder / name.partition(".")[0]
    return top.is_dir() or top.with_suffix(".py").exists()


def _search(first: list[Path], last: list[Path]) -> None:
    """Puts them there, wherever Python's own start has put them. A package's folder comes last: its
    modules must not hide those of the standard library."""
    before = list(dict.fromkeys(map(str, first)))
    after = [one for one in dict.fromkeys(map(str, last)) if one not in before]
    sys.path[:] = [
        *before,
        *(one for one in sys.path if one and one not in {*before, *after}),
        *after,
    ]
    importlib.invalidate_caches()


# --- importing -------------------------------------------------------------------------------


def _imported(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises is shown as its own
        own = _own_frames(error.__traceback__)
        if own is None and isinstance(error, ModuleNotFoundError):
            raise ConfigError([_missing(error, path)]) from error
        raise _failed(error, own, name) from error


def _missing(error: ModuleNotFoundError, path: str) -> str:
    if path.endswith(".py"):
        return wrong(path, "a module's name", "a file's", f"Write {path.removesuffix('.py')}:app.")
    return wrong(
        path,
        "a module that can be imported",
        f"no module '{error.name}' in {', '.join(sys.path[:2])}",
        "Start in the project's folder, or correct the name.",
    )


def _failed(error: Exception, own: TracebackType | None, name: str) -> Fail:
    """The user's own traceback; an error of busline, or a call of it that Python refuses, needs
    only the place."""
    at = _at(traceback.extract_tb(own))
    if isinstance(error, BuslineError):
        return Fail(f"{error}{at}", USAGE)
    if isinstance(error, TypeError) and (known := _options(str(error))) is not None:
        name, options = known
        return Fail(
            wrong(
                name,
                f"its own options ({', '.join(options)})",
                f"a call that Python refuses: {error}",
                "Correct it.",
            )
            + at,
            USAGE,
        )
    traceback.print_exception(type(error), error, own)
    return Fail(f"'{name}' could not be imported: the error above is its own.", USAGE)


def _at(frames: traceback.StackSummary) -> str:
    """The innermost place of the user's."""
    return next(
        (
            f"\n  in {one.filename}, line {one.lineno}"
            for one in reversed(frames)
            if not one.filename.startswith(LIBRARIES)
        ),
        "",
    )


def _problems(app: App) -> Sequence[str]:
    """What else is wrong with it, as its start would say."""
    try:
        app.assemble(Run())
    except ConfigError as error:
        return error.problems
    return ()


def _options(refused: str) -> tuple[str, list[str]] | None:
    """Of what Python says of a call that does not fit: what of busline was called, and the options
    that it has."""
    name, _, method = refused.partition("(")[0].partition(".")
    kind = getattr(busline, name, None)
    found = kind if method in ("", "__init__") else getattr(kind, method, None)
    if not callable(found):
        return None
    return name if found is kind else method, [
        one for one in inspect.signature(found).parameters if one != "self"
    ]


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """From the first frame of the user's code on."""
    while frames is not None and _of_the_import(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _of_the_import(file: str) -> bool:
    return file.startswith("<frozen importlib") or file == importlib.__file__ or file == __file__


def _refuse_doubles(path: str, root: Path) -> None:
    """A file imported under two names has two Apps, two tasks and two of everything else."""
    seen: dict[str, tuple[str, ModuleType]] = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or "site-packages" in file or not Path(file).is_relative_to(root):
            continue
        first, known = seen.setdefault(os.path.realpath(file), (name, module))
        if known is not module:
            longer = max(first, name, key=len)
            got = f"{file} as '{first}' and as '{name}'"
            remedy = (
                f"Import it as {longer} everywhere, or remove the __init__.py that makes its folder"
                " a package."
            )
            raise ConfigError([wrong(path, "every module imported under one name", got, remedy)])


# --- the App in its module -------------------------------------------------------------------


def _attribute(module: ModuleType, attribute: str, path: str) -> App:
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if not attribute:
        return _only(apps, path)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, App):
        return found
    got = "nothing of that name" if found is None else f"a {type(found).__name__}"
    expected = f"an App (the module has {', '.join(apps) or 'none'})"
    raise ConfigError([wrong(path, expected, got, "Correct the name after the colon.")])


def _only(apps: dict[str, App], path: str) -> App:
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    got = f"{len(apps)} ({', '.join(apps)})" if apps else "none"
    raise ConfigError([wrong(path, "one App in the module", got, "Name it after a colon.")])
