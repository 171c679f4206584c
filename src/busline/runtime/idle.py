"""When there is nothing left to do."""

from busline.runtime.bus import Bus

LOOK = 0.05


async def until_idle(bus: Bus) -> None:
    """Returns when nothing runs, waits or is to be retried; jobs delayed by their sender do not hold it."""
    still = 0
    while still < 2:
        still = still + 1 if await _idle(bus) else 0
        await bus.clock.sleep(LOOK)


async def _idle(bus: Bus) -> bool:
    if not all(worker.idle for worker in bus.workers):
        return False
    works = [worker.work for worker in bus.workers]
    queues = {address.name for work in works for address in work.subscription.addresses if address.kind == "queue"}
    groups = {work.subscription.group for work in works}
    for transport in bus.engines.all():
        depth = await transport.inspector.depth()
        if any(one.waiting or one.retrying or one.running for name, one in depth.items() if name in queues):
            return False
        if any(one.behind for one in await transport.inspector.lag() if one.group in groups):
            return False
    return True
