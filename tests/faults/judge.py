"""Says of an attack what was lost, doubled beyond the promise, out of order, and committed too
early. No I/O.

It reads what the functions wrote down, what was done to their processes, what another client saw of
the commits, and what the engine has left in the end."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

DIED = "its worker died"


class Line(NamedTuple):
    """`what`: begin, end or effect. `place`: the position of a record, or a job's name. Times are
    of the machine's monotonic clock."""

    what: str
    at: float
    process: int
    number: int
    key: str
    place: str


class Fault(NamedTuple):
    """What was done at `at`, and undone at `until`. `process`: whose; 0 if it was done to no
    worker."""

    at: float
    until: float
    process: int = 0


class Commit(NamedTuple):
    """A partition's position, as it was seen at `at`."""

    at: float
    partition: str
    offset: int


class Promise(NamedTuple):
    """`window`: what ended in so many seconds before a fault may run again. `effects`: how many
    there may be: one of each message, one of each run, or more, where the answer to a send can be
    lost."""

    window: float
    effects: Literal["message", "run", "more"]


@dataclass(frozen=True, slots=True)
class Story:
    """`published`: the numbers that were confirmed. `left`: what the engine still has to do when
    all is over; `dead`: its dead letters, each with its reason."""

    published: frozenset[int]
    lines: Sequence[Line]
    faults: Sequence[Fault] = ()
    commits: Sequence[Commit] = ()
    left: int = 0
    dead: Mapping[int, str] = field(default_factory=dict[int, str])


@dataclass(slots=True)
class Run:
    process: int
    begun: float
    ended: float | None = None

    def cut(self, fault: Fault) -> bool:
        """Whether it was under way when this was done to its process."""
        return (
            fault.process == self.process
            and self.begun <= fault.until
            and (self.ended is None or self.ended > fault.at)
        )

    def undone(self, faults: Iterable[Fault], window: float) -> bool:
        """Whether one of them may make it run again."""
        return any(self.cut(Fault(one.at - window, one.until, one.process)) for one in faults)


Runs: TypeAlias = Mapping[str, Sequence[Run]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`early`: commits above what was not finished. `seconds`: for each fault, until it went on.
    `buried`: what is dead as promised, because its workers died three times."""

    messages: int
    faults: int
    lost: Sequence[str]
    doubled: Sequence[str]
    disordered: Sequence[str]
    early: Sequence[str]
    buried: int
    again: int
    seconds: Sequence[float]

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.disordered or self.early)

    def findings(self) -> Iterator[str]:
        for name in ("lost", "doubled", "disordered", "early"):
            for one in getattr(self, name):
                yield f"{name}: {one}"


def judge(story: Story, promise: Promise) -> Verdict:
    runs, ends = _runs(story.lines), _ends(story.lines)
    buried = {n for n, reason in story.dead.items() if reason.startswith(DIED)}
    return Verdict(
        messages=len(story.published),
        faults=len(story.faults),
        lost=list(_lost(story, buried)),
        doubled=[
            *_doubled_runs(runs, story.faults, promise.window),
            *_doubled_effects(story.lines, promise),
        ],
        disordered=list(_disordered(story.lines)),
        early=list(_early(story)),
        buried=len(buried),
        again=sum(len(each) - 1 for each in runs.values()),
        seconds=[_until_it_went_on(fault, runs, ends) for fault in story.faults],
    )


def _runs(lines: Iterable[Line]) -> Runs:
    """Of each record or job, in the order in which they began. A process runs one thing once at a
    time."""
    found = defaultdict[str, list[Run]](list)
    open_ones = dict[tuple[int, str], Run]()
    for line in lines:
        if line.what == "begin":
            run = open_ones[line.process, line.place] = Run(line.process, line.at)
            found[line.place].append(run)
        elif line.what == "end":
            open_ones.pop((line.process, line.place)).ended = line.at
    return found


def _lost(story: Story, buried: set[int]) -> Iterator[str]:
    ended = {line.number for line in story.lines if line.what == "end"}
    effects = {line.number for line in story.lines if line.what == "effect"}
    for n in sorted(story.published - buried):
        if n not in ended:
            yield f"{n} was never run to its end"
        elif n not in effects:
            yield f"{n} ran, and its effect is nowhere"
    for n in sorted(story.dead.keys() - buried):
        yield f"{n} is dead: {story.dead[n]}"
    if story.left:
        yield f"{story.left} are left in the engine"


def _doubled_runs(runs: Runs, faults: Sequence[Fault], window: float) -> Iterator[str]:
    """One run may be undisturbed; every other one needs a fault that undid it."""
    for place, each in runs.items():
        if len(each) > 1:
            sound = [run for run in each if not run.undone(faults, window)]
            if len(sound) > 1:
                yield f"{place} ran {len(each)} times: {sound[0]} and {sound[1]} were not disturbed"


def _doubled_effects(lines: Sequence[Line], promise: Promise) -> Iterator[str]:
    if promise.effects == "more":
        return
    effects = Counter(line.number for line in lines if line.what == "effect")
    ended = Counter(line.number for line in lines if line.what == "end")
    for n, times in effects.items():
        if times > (1 if promise.effects == "message" else ended[n]):
            yield f"{n} has {times} effects of {ended[n]} runs"


def _disordered(lines: Iterable[Line]) -> Iterator[str]:
    """A record's first run begins when the one before it of its key has ended, in whatever run."""
    last = dict[tuple[str, str], int]()
    begun, ended = set[str](), set[str]()
    for line in lines:
        if line.what == "end":
            ended.add(line.place)
        elif line.what == "begin" and "@" in line.place and line.place not in begun:
            begun.add(line.place)
            partition, offset = _position(line.place)
            before = last.get((partition, line.key))
            last[partition, line.key] = offset
            if before is not None and (before > offset or f"{partition}@{before}" not in ended):
                yield (
                    f"{line.place} of key {line.key} began before {partition}@{before} had ended,"
                    " or behind it"
                )


def _early(story: Story) -> Iterator[str]:
    """Whatever is below a position that was seen had ended by then. A new coordinator may show an
    older one for a moment."""
    ended = dict[str, float]()
    for line in story.lines:
        if line.what == "end":
            ended.setdefault(line.place, line.at)
    seen = defaultdict[str, int](int)
    for at, partition, offset in story.commits:
        for one in range(seen[partition], offset):
            end = ended.get(f"{partition}@{one}")
            if end is None or end > at:
                yield f"{partition}@{one} had not ended when {offset} was committed"
        seen[partition] = max(seen[partition], offset)


def _ends(lines: Iterable[Line]) -> Sequence[Sequence[float]]:
    """When something ended: of each partition, or of the queue."""
    found = defaultdict[str, list[float]](list)
    for line in lines:
        if line.what == "end":
            found[_position(line.place)[0]].append(line.at)
    return list(found.values())


def _until_it_went_on(fault: Fault, runs: Runs, ends: Iterable[Sequence[float]]) -> float:
    """The longest silence of a partition, or of the queue, since the fault; or until everything
    that was cut has ended."""
    near = (
        pair
        for each in ends
        for pair in pairwise(each)
        if pair[1] > fault.at and pair[0] <= fault.until
    )
    silences = [after - max(before, fault.at) for before, after in near]
    moment = fault._replace(until=fault.at)
    cut = [
        _next_end(each, fault.at) - fault.at
        for each in runs.values()
        if any(run.cut(moment) for run in each)
    ]
    return max([*silences, *cut], default=0.0)


def _next_end(runs: Iterable[Run], at: float) -> float:
    return min((run.ended for run in runs if run.ended is not None and run.ended > at), default=at)


def _position(place: str) -> tuple[str, int]:
    """The partition and the offset of a record; a job has its queue."""
    partition, _, offset = place.partition("@")
    return (partition, int(offset)) if offset else (place.partition("/")[0], 0)
