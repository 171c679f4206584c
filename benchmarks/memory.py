"""Typed messages a second through the memory engine, against a bare loop."""

import asyncio
import time
from collections.abc import Callable

from pydantic import TypeAdapter

from benchmarks.shop import Order, orders, seen, stream_app, values


async def busline(count: int) -> float:
    """Publishes and consumes `count` messages in one process; messages a second."""
    seen.ids.clear()
    app, batch = stream_app(), values(count)
    async with app.running():
        begun = time.perf_counter()
        await app.publish_many(orders, batch)
        await until(lambda: len(seen.ids) == count)
        return count / (time.perf_counter() - begun)


async def bare(count: int) -> float:
    """Validates bodies and makes one task for each, a hundred at a time."""
    seen.ids.clear()
    adapter = TypeAdapter(Order)
    bodies = [adapter.dump_json(value) for value in values(count)]
    validate, loop = adapter.validator.validate_json, asyncio.get_running_loop()

    async def handle(order: Order) -> None:
        seen.ids.add(order.id)

    begun = time.perf_counter()
    for start in range(0, count, 100):
        await asyncio.gather(
            *[loop.create_task(handle(validate(body))) for body in bodies[start : start + 100]]
        )
    return count / (time.perf_counter() - begun)


async def until(done: Callable[[], bool], limit: float = 120.0) -> None:
    """Looks again whenever the loop has nothing else to do for a millisecond."""
    async with asyncio.timeout(limit):
        while not done():
            await asyncio.sleep(0.001)
