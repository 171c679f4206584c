"""When a run that ends by itself has nothing left to do."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from busline.core.address import Address
from busline.core.errors import Unavailable
from busline.core.ports import Depth, Features, Lag, Subscription
from busline.runtime.bus import Bus
from busline.runtime.elsewhere import Elsewhere
from busline.runtime.engines import Engines
from busline.runtime.idle import until_idle
from busline.runtime.work import Work
from busline.runtime.worker import Worker


class Seen:
    """An engine that shows one thing after the other; the last for ever."""

    def __init__(self, *depths: Depth | Exception, lag: Sequence[Lag] = ()) -> None:
        self.depths, self._lag, self.looks = list(depths), lag, 0
        self.inspector: Any = self
        self.features = Features(topics=True, queues=True, durable=True)
        self.system, self.server = "slow", None

    async def depth(self) -> Mapping[str, Depth]:
        self.looks += 1
        found = self.depths.pop(0) if len(self.depths) > 1 else self.depths[0]
        if isinstance(found, Exception):
            raise found
        return {"mine": found, "theirs": Depth(waiting=5)}

    async def lag(self, groups: Sequence[str] | None = None) -> Sequence[Lag]:
        return self._lag


async def looks(engine: Any) -> int:
    """How often it was looked at until everything was idle."""
    bus = Bus(Engines(engine, engine))
    subscriptions = [
        Subscription((Address("queue", "mine"),)),
        Subscription((Address("topic", "orders"),), "group"),
    ]
    bus.workers = [
        Worker(Work("work", engine, one, {}, 1, 1), bus.clock, Elsewhere(bus.engines, engine), {})
        for one in subscriptions
    ]
    async with asyncio.timeout(10):
        await until_idle(bus)
    found: int = engine.looks
    return found


async def test_it_is_looked_at_twice() -> None:
    assert await looks(Seen(Depth())) == 2


async def test_what_waits_runs_or_retries_holds_it_and_what_is_delayed_does_not() -> None:
    assert (
        await looks(Seen(Depth(waiting=1), Depth(running=1), Depth(retrying=1), Depth(delayed=1)))
        == 5
    )


async def test_something_new_at_the_second_look_begins_again() -> None:
    assert await looks(Seen(Depth(), Depth(waiting=1), Depth())) == 4


async def test_an_engine_that_is_away_is_not_idle() -> None:
    assert await looks(Seen(Unavailable("away"), Depth(), Unavailable("away"), Depth())) == 5


async def test_groups_and_topics_that_are_not_served_do_not_hold_it() -> None:
    assert (
        await looks(
            Seen(
                Depth(),
                lag=[Lag("other", "orders", 3), Lag("group", "left", 3), Lag("group", "orders", 0)],
            )
        )
        == 2
    )
