"""When there is nothing left to do."""

from busline.core.errors import Unavailable
from busline.core.ports import Inspector
from busline.runtime.bus import Bus

LOOK = 0.05
LOOKS = 2  # what leaves one place between two questions is seen in the other at the second look


async def until_idle(bus: Bus) -> None:
    """Returns when nothing runs, waits or is to be retried; jobs delayed by their sender do not
    hold it.

    Only the queues and groups that this process serves count. While an engine is away nothing is
    idle."""
    still = 0
    while True:
        still = still + 1 if await _idle(bus) else 0
        if still == LOOKS:
            return
        await bus.clock.sleep(LOOK)


async def _idle(bus: Bus) -> bool:
    if not all(worker.idle for worker in bus.workers):
        return False
    subscriptions = [worker.work.subscription for worker in bus.workers]
    groups = {
        (each.group, one.name)
        for each in subscriptions
        for one in each.addresses
        if each.group is not None
    }
    try:
        for engine in bus.engines.all():
            if not await _empty(engine.inspector, bus.queues(), groups):
                return False
    except Unavailable:
        return False  # the workers say so, and wait for it
    return all(worker.idle for worker in bus.workers)


async def _empty(inspector: Inspector, queues: set[str], groups: set[tuple[str, str]]) -> bool:
    depth = await inspector.depth()
    if any(
        one.waiting or one.retrying or one.running for name, one in depth.items() if name in queues
    ):
        return False
    lag = await inspector.lag([group for group, _ in groups])
    return not any(one.behind for one in lag if (one.group, one.topic) in groups)
