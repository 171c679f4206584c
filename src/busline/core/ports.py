"""What a transport is, as the rest of busline sees it. Writing one means passing
`busline.testing.contract`."""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self, TypeAlias

from busline.core.address import Address
from busline.core.clock import Clock
from busline.core.counts import Counts, Whose
from busline.core.message import DeadLetter, Delivery, Message
from busline.core.outcome import Settled, Settlement
from busline.core.served import Served

Order: TypeAlias = Literal["partition", "key", "none"]
Start: TypeAlias = Literal["earliest", "latest"] | float
BATCH_BYTES = 4 * 1024 * 1024
UNKNOWN_LIMIT = 900.0
State: TypeAlias = Literal["waiting", "delayed", "running", "succeeded", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one worker asks for. `group` is None for queues. `start`: where a new group begins (a
    float: that time).

    `ahead`: how many unsettled deliveries one partition may have out at once. `batch_bytes`: what
    one `receive` may return of bodies, and what may be read ahead of it; a larger message comes
    alone. `tasks`: the names that the worker has functions for; None stands for any. A job of
    another task waits aside for a worker that knows it, and comes to any worker of its queue if
    there was none for `unknown_limit` seconds."""

    addresses: tuple[Address, ...]
    group: str | None = None
    order: Order = "partition"
    start: Start = "earliest"
    ahead: int = 500
    batch_bytes: int = BATCH_BYTES
    tasks: frozenset[str] | None = None
    unknown_limit: float = UNKNOWN_LIMIT


class Features(NamedTuple):
    """What a transport can carry: the App refuses an impossible plan, the contract picks its tests.

    `atomic`: an outcome's effects are applied in one step with it. Where they are not, they may
    take long, and outcomes of several partitions are settled beside one another. `notes`: a plain
    acknowledgement is noted by the receiver and written down later, with others."""

    topics: bool
    queues: bool
    durable: bool
    atomic: bool = True
    notes: bool = False


class Host(Protocol):
    """A worker, as its receiver sees it."""

    clock: Clock

    def recall(self, deliveries: Sequence[Delivery]) -> None:
        """These are no longer ours: whatever runs is cut, nothing it says will count. Returns at
        once."""
        ...

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """These are wanted back: what has not begun is settled as Released, what runs may end.
        Returns at once."""
        ...

    def missed(self, count: int) -> None:
        """So many records were gone before they were read. Returns at once."""
        ...

    def waits(self, place: str, why: str | None) -> None:
        """A part of the engine stands still, and why; None: it goes on. Returns at once."""
        ...

    def unknown(self, task: str, count: int) -> None:
        """So many jobs of a task that is not in `tasks` were met, and wait aside. Returns at
        once."""
        ...


class Receiver(Protocol):
    """One live subscription."""

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Waits for at least one delivery; returns at most `limit`, and no more bytes than
        `batch_bytes`. One call at a time. Cancelled, it loses none. Raises Unavailable while the
        engine is away: call again."""
        ...

    async def settle(self, settled: Sequence[Settled]) -> Settlement:
        """Applies outcomes: any mix, any order, each with its effects in one step where one engine
        keeps both, again if unsure. A delivery whose effects can never be done goes to the dead
        letters. Returns which these are, and which are no longer ours. Raises Unavailable: nothing
        is known, call again."""
        ...


class Transport(Protocol):
    """Moves messages and knows nothing of handlers. Entered before use; leaving it closes what it
    opened."""

    features: Features
    system: str
    """What its engine is called in traces and metrics: memory, sqlite, redis, kafka."""

    @property
    def server(self) -> tuple[str, int] | None:
        """Host and port of its engine, where it has them."""
        ...

    @property
    def store(self) -> "Store": ...
    @property
    def inspector(self) -> "Inspector": ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def publish(self, address: Address, messages: Sequence[Message]) -> Mapping[int, str]:
        """Confirmed by the engine: all of them, or none where it can undo. Returns those that were
        there already, by their index: the id of the job that holds the id or unique key. Empty: all
        are new. Raises Unavailable: the outcome is unknown. Without messages it looks for the
        address, as at start. Raises Invalid for a topic with another number of partitions."""
        ...

    def subscribe(
        self, subscription: Subscription, host: Host
    ) -> AbstractAsyncContextManager[Receiver]:
        """Entered, it receives; leaving gives back what is unsettled."""
        ...


class Store(Protocol):
    """Facts by key, each with a time to live. An outcome's Keep lands here."""

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]: ...

    async def put(self, key: str, value: bytes, ttl: float, *, absent: bool = False) -> bool:
        """Keeps `value` for `ttl` seconds. `absent`: only where nothing is kept. Returns whether it
        was stored."""
        ...

    async def wait(self, key: str, until: float | None) -> bytes | None:
        """The value as soon as there is one; None once the clock's ticks reach `until`. Woken, not
        polled."""
        ...


class Look(NamedTuple):
    """What an engine knows of a job. `attempt` counts the runs begun; None where the engine does
    not know any more."""

    state: State
    attempt: int | None = None
    dead: DeadLetter | None = None


class Depth(NamedTuple):
    """A queue in numbers. `delayed` by their sender; `retrying` after a failure, or aside until a
    worker comes that knows their task. `oldest`: when the first of the waiting was sent, or if it
    was delayed, due: seconds since 1970; None where none waits."""

    waiting: int = 0
    delayed: int = 0
    retrying: int = 0
    running: int = 0
    oldest: float | None = None

    def age(self, now: float) -> float | None:
        """Seconds for which the first has waited; None where none waits."""
        return None if self.oldest is None else max(now - self.oldest, 0.0)


class Lag(NamedTuple):
    """How many records of a topic a group has not finished; of how many partitions, read by how
    many processes."""

    group: str
    topic: str
    behind: int
    partitions: int = 0
    members: int = 0


class Redriven(NamedTuple):
    """How many dead letters run again, and why others may not."""

    again: int
    refused: tuple[str, ...] = ()


class Standing(NamedTuple):
    """How many dead letters of a handler stand, and when the first and the last died: seconds since
    1970."""

    served: Served
    handler: str
    letters: int
    first: float
    last: float

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        return cls(letter.served, letter.handler, 1, letter.died_at, letter.died_at)


def together(parts: Iterable[Standing]) -> list[Standing]:
    """One for each handler."""
    found: dict[tuple[Served, str], Standing] = {}
    for one in parts:
        key = one.served, one.handler
        known = found.get(key)
        found[key] = (
            one
            if known is None
            else Standing(
                *key,
                known.letters + one.letters,
                min(known.first, one.first),
                max(known.last, one.last),
            )
        )
    return list(found.values())


class Inspector(Protocol):
    """For people, the command line and Job; never on the hot path."""

    async def look(self, id: str) -> Look:
        """What is known of a job. A queue without look-up by id may say `waiting` of a young id it
        knows nothing of."""
        ...

    async def depth(self) -> Mapping[str, Depth]: ...

    async def peek(self, address: Address, limit: int) -> Sequence[Delivery]:
        """What stands there, `limit` at most: of a queue the jobs that nobody has in hand, in their
        order, those that wait for a time behind the others; of a topic the last records, the oldest
        first. Nothing is taken or changed."""
        ...

    async def clear(self, queue: str) -> int:
        """Forgets the jobs of a queue for ever, but for those that somebody has in hand; returns
        how many there were. Their unique keys are free, their ids new again."""
        ...

    async def lag(self, groups: Sequence[str] | None = None) -> Sequence[Lag]:
        """Of these groups; of all that the engine knows, if none are named."""
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 where the engine has no such topic."""
        ...

    async def counts(self) -> Mapping[Whose, Counts]:
        """What was settled so far, by every process."""
        ...

    async def dead(
        self,
        *,
        served: Container[Served] | None = None,
        handlers: Collection[str] | None = None,
        id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[DeadLetter]:
        """Dead letters, oldest first, `limit` at most, beginning after the letter whose id is
        `after`: those of what is `served`, and of these handlers. None stands for any."""
        ...

    async def standing(self, served: Container[Served] | None = None) -> Sequence[Standing]:
        """How many there are, without a look at their bodies where the engine can."""
        ...

    async def redrive(self, ids: Sequence[str], handler: str | None = None) -> Redriven:
        """Each goes back to where it died, as it came, and is no longer dead: to `handler` there,
        else to the one it died in. A job whose unique key is held by a living one is refused and
        stays."""
        ...

    async def mend(self, id: str, body: bytes) -> bool:
        """Gives a dead letter another body, and leaves everything else of it; False if it is not
        there."""
        ...

    async def purge(self, ids: Sequence[str]) -> int:
        """Forgets them for ever; returns how many there were."""
        ...
