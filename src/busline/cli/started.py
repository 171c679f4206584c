"""The first line of a run."""

from collections.abc import Mapping

from busline.app import App
from busline.core.address import redriven_group
from busline.core.errors import Unavailable
from busline.naming import warn_in_container
from busline.runtime.bus import Bus
from busline.runtime.work import Work


async def first_line(app: App, bus: Bus) -> str:
    """What runs now, and how far behind it is."""
    named = app.engine_names()
    warn_in_container((named.streams, named.jobs))
    # without the redriven
    works = [worker.work for worker in bus.workers if redriven_group(_names(worker.work)) is None]
    behind = await _behind(bus)
    groups = [
        f"{one.subscription.group} on {_names(one)} ({one.at_once}, {_backlog(one, behind)})"
        for one in works
        if one.subscription.group
    ]
    queues = [f"{_names(one)} ({one.at_once})" for one in works if not one.subscription.group]
    parts = [
        f"{name} {engine}"
        for name, engine in (("streams", named.streams), ("jobs", named.jobs))
        if engine is not None
    ]
    parts += [
        f"{what} {', '.join(names)}"
        for what, names in (("groups", groups), ("queues", queues))
        if names
    ]
    return f"'{app.name}' runs: {'; '.join(parts) or 'nothing'}"


async def _behind(bus: Bus) -> Mapping[tuple[str, str], int] | None:
    """How many records each group has not finished; None where the engine does not say so now."""
    try:
        lag = await bus.lag()
    except Unavailable:
        return None
    return {(one.group, one.topic): one.behind for one in lag}


def _backlog(work: Work, behind: Mapping[tuple[str, str], int] | None) -> str:
    if behind is None:
        return "how far behind is not known"
    count = sum(
        behind.get((work.subscription.group or "", address.name), 0)
        for address in work.subscription.addresses
    )
    return f"{count:,} behind" if count else "nothing behind"


def _names(work: Work) -> str:
    return ", ".join(address.name for address in work.subscription.addresses)
