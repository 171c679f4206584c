"""Which dead letters a command is about, and what it then does with them."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from busline.app import App
from busline.cli.progress import progress
from busline.core.clock import stamp
from busline.core.errors import wrong
from busline.core.message import DeadLetter
from busline.core.ports import Inspector, Redriven, Standing, Transport, together
from busline.core.served import Served, Serves

PAGE = 100
# why an App does not take a letter, if so; the bool: also of other Apps
Judge = Callable[[str, Serves, DeadLetter, bool], str | None]
Act = Callable[[App, Transport, Sequence[str], str | None], Awaitable[Redriven]]
# ids by the handler that is to run them; None: the one they died in
ByHandler = dict[str | None, list[str]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """As a command's words say it: ids, or the letters of some handlers, or all. `all_apps`: also
    those of other Apps."""

    ids: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()
    all_apps: bool = False


@dataclass(slots=True)
class Choice:
    """What was found. `ids`: of each engine, in their order. `left`: what the App shows, and
    changes by name only."""

    ids: list[ByHandler] = field(default_factory=list[ByHandler])
    standing: list[Standing] = field(default_factory=list[Standing])
    left: Counter[tuple[Served, str]] = field(default_factory=Counter[tuple[Served, str]])
    refused: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        """How many, of which handlers, from when to when."""
        of = ", ".join(f"{one.letters} of '{one.handler}' ({one.served})" for one in self.standing)
        first, last = (
            min(one.first for one in self.standing),
            max(one.last for one in self.standing),
        )
        return (
            f"{self.count} dead letter{'s' * (self.count > 1)}: {of}, from {stamp(first)} to"
            f" {stamp(last)}"
        )

    @property
    def count(self) -> int:
        return sum(one.letters for one in self.standing)


def unknown_id(id: str) -> str:
    return wrong(
        id, "a dead letter's id", "one that is not there", "List them with `busline dead list`."
    )


def foreign(app: str, letter: DeadLetter, remedy: str) -> str:
    return wrong(letter.id, f"a dead letter of '{app}'", f"one of the {letter.served}", remedy)


# --- finding them, before anything is done: what is redriven may die again meanwhile ---------


async def choose(app: App, chosen: Chosen, judge: Judge) -> Choice:
    choice, serves = Choice(), app.serves()
    async with app:
        missing = set(chosen.ids)
        for engine in await app.bus().every_engine():
            choice.ids.append({})
            async for page in _pages(engine.inspector, serves, chosen):
                missing -= {one.id for one in page}
                _take(
                    choice,
                    chosen,
                    page,
                    serves,
                    lambda letter: judge(app.name, serves, letter, chosen.all_apps),
                )
    choice.refused += [unknown_id(id) for id in chosen.ids if id in missing]
    return choice


async def _pages(
    inspector: Inspector, serves: Serves, chosen: Chosen
) -> AsyncIterator[Sequence[DeadLetter]]:
    for id in dict.fromkeys(chosen.ids):
        yield await inspector.dead(id=id, limit=1)
    if not chosen.ids:
        served, handlers, last = None if chosen.all_apps else serves, chosen.handlers or None, ""
        while page := await inspector.dead(
            served=served, handlers=handlers, limit=PAGE, after=last
        ):
            yield page
            last = page[-1].id


def _take(
    choice: Choice,
    chosen: Chosen,
    page: Sequence[DeadLetter],
    serves: Serves,
    refused: Callable[[DeadLetter], str | None],
) -> None:
    taken = list[DeadLetter]()
    for letter in page:
        if not (chosen.ids or chosen.all_apps or _is_meant(letter, serves, chosen.handlers)):
            choice.left[letter.served, letter.handler] += 1
        elif (why := refused(letter)) is not None:
            choice.refused.append(why)
        else:
            choice.ids[-1].setdefault(_heir(letter, serves), []).append(letter.id)
            taken.append(letter)
    choice.standing = together([*choice.standing, *map(Standing.of, taken)])


def _is_meant(letter: DeadLetter, serves: Serves, handlers: Sequence[str]) -> bool:
    """A handler of the App means what it handles now. What its former handlers left is meant by
    their names alone: it may be of another App that shares the queue. No handler: bytes that are no
    message."""
    if letter.handler in serves.names() or not letter.handler:
        return letter.served in serves.handlers
    return letter.handler in handlers


def _heir(letter: DeadLetter, serves: Serves) -> str | None:
    """The function that a group has on a topic now, where the one it had is gone."""
    known = serves.handlers.get(letter.served, frozenset())
    return (
        None
        if letter.group is None or letter.handler in known or len(known) != 1
        else next(iter(known))
    )


# --- doing it --------------------------------------------------------------------------------


def to_purge(app: str, serves: Serves, letter: DeadLetter, all_apps: bool) -> str | None:
    """Why a letter is not purged."""
    if all_apps or letter.served in serves:
        return None
    return foreign(app, letter, "Add --all-apps, or use the App that has it.")


def to_redrive(app: str, serves: Serves, letter: DeadLetter, _: bool) -> str | None:
    """Why a letter is not redriven: nobody would read it where it goes, as far as this App
    knows."""
    if letter.served in serves.handlers:
        return None
    who = "tasks have queue" if letter.group is None else "function has group"
    return foreign(
        app, letter, f"Redrive it with the App whose {who}='{letter.group or letter.address}'."
    )


async def redrive(app: App, engine: Transport, ids: Sequence[str], handler: str | None) -> Redriven:
    return await app.bus().redrive(engine, ids, handler)


async def purge(_: App, engine: Transport, ids: Sequence[str], __: str | None) -> Redriven:
    return Redriven(await engine.inspector.purge(ids))


async def perform(app: App, choice: Choice, label: str, act: Act) -> Redriven:
    """Does it, a page at a time; says how many were done, and what was refused, also before."""
    count, refused = 0, choice.refused
    async with app:
        with progress(label, choice.count) as bar:
            for engine, by_handler in zip(await app.bus().every_engine(), choice.ids, strict=True):
                # dead records are gone through once, for all
                size = PAGE if engine.features.queues else max(choice.count, 1)
                for handler, page in _paged(by_handler, size):
                    done = await act(app, engine, page, handler)
                    count, refused = count + done.again, [*refused, *done.refused]
                    bar.update(len(page))
    return Redriven(count, tuple(refused))


def _paged(by_handler: ByHandler, size: int) -> Iterator[tuple[str | None, list[str]]]:
    for handler, ids in by_handler.items():
        for start in range(0, len(ids), size):
            yield handler, ids[start : start + size]
