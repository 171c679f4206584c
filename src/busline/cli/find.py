"""Finding the App: `module:app`, [tool.busline] in pyproject.toml, or BUSLINE_APP."""

import importlib
import importlib.util
import os
import sys
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from busline.app import App
from busline.core.errors import BuslineError, ConfigError, Unavailable, wrong

USAGE, UNREACHABLE, INTERNAL = 2, 69, 70
Function = Callable[..., Any]


class Fail(click.ClickException):
    """An error text and the status to leave with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # pyright: ignore  # click asks the instance
        return self.status

    def show(self, file: Any = None) -> None:
        click.echo(self.format_message(), file=file or sys.stderr)


def guarded(call: Callable[[], Any]) -> Any:
    """What the call returns; busline's errors become texts and statuses."""
    try:
        return call()
    except Unavailable as error:
        raise Fail(str(error), UNREACHABLE) from error
    except (BuslineError, TypeError) as error:
        if isinstance(error, TypeError) and not getattr(error, "busline", False):
            raise
        raise Fail(str(error), USAGE) from error


def find(path: str | None) -> App:
    """The App. Ends the command with one clear text, or the user's own traceback, if there is none."""
    try:
        return _load(_path(path))
    except ConfigError as error:
        raise Fail(str(error), USAGE) from error


def split_app(words: tuple[str, ...], names: str) -> tuple[App, tuple[str, ...]]:
    """The App and the other words: the first is the App's path where it has a colon and more follow than are needed."""
    if words and ":" in words[0] and not words[0].lstrip().startswith(("{", "[", '"')):
        return find(words[0]), words[1:]
    if not words:
        raise click.UsageError(f"Missing {names}.")
    return find(None), words


def _path(path: str | None) -> str:
    if path := path or _configured() or os.environ.get("BUSLINE_APP"):
        return path
    raise ConfigError([wrong("APP", "module:app", "nothing", "Name it, set BUSLINE_APP, or write app = 'module:app' under [tool.busline] in pyproject.toml.")])


def _configured() -> str | None:
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / "pyproject.toml"
        if file.exists():
            try:
                found = tomllib.loads(file.read_text()).get("tool", {}).get("busline", {}).get("app")
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError([wrong(file, "a TOML file", str(error), "Correct it.")]) from error
            if found:
                _search(folder)
                return str(found)
            return None
    return None


def _search(folder: Path) -> None:
    for one in (folder / "src", folder):
        if one.is_dir() and str(one) not in sys.path:
            sys.path.insert(0, str(one))


def _load(path: str) -> App:
    name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError([wrong(path, "module:app", "another form", "Write the module with dots, a colon and the App's name.")])
    _search(Path.cwd())
    name = _anchored(name)
    module = _imported(name, path)
    return _attribute(module, attribute, path)


def _anchored(name: str) -> str:
    """The module's full name: started inside a package, `app` is `package.app`, or it would be imported twice."""
    folder = Path.cwd()
    parts: list[str] = []
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    if not parts:
        return name
    _search(folder)
    inside = Path.cwd().joinpath(*name.split("."))
    return ".".join([*parts, name]) if inside.with_suffix(".py").exists() or (inside / "__init__.py").exists() else name


def _imported(name: str, path: str) -> Any:
    try:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            where = f"no module '{missing}' in {', '.join(sys.path[:3])}"
            raise ConfigError([wrong(path, "a module that can be imported", where, "Start in the project's folder, or correct the name.")]) from error
        raise
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises: their own traceback says it best
        _show(error)
        raise Fail(f"'{name}' could not be imported: the error above is its own.", USAGE) from error


def _show(error: BaseException) -> None:
    frames = error.__traceback__
    while frames is not None and ("importlib" in frames.tb_frame.f_code.co_filename or "/busline/cli/" in frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)


def _attribute(module: Any, attribute: str, path: str) -> App:
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if not attribute:
        if len(set(map(id, apps.values()))) == 1:
            return next(iter(apps.values()))
        raise ConfigError([wrong(path, "one App in the module", f"{len(apps)} ({', '.join(apps) or 'none'})", "Name it after a colon.")])
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, App):
        known = ", ".join(apps) or "none"
        raise ConfigError([wrong(path, f"an App (the module has {known})", type(found).__name__, "Correct the name after the colon.")])
    return found
