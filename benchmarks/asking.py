"""What asking costs a Redis server: `status()` beside large waiting jobs, and many who wait for
results. `python -m benchmarks.asking URL`"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from busline import App

WAITING = (10, 100, 1000)
BODY = "x" * 300 * 1024
WAITERS, SECONDS = 4000, 15


def asking_app(url: str) -> App:
    app = App("asking", jobs=url)

    @app.task
    async def handle(body: str) -> int:
        return len(body)

    return app


async def busy(server: Redis) -> float:
    """Seconds of processor that the server has used so far."""
    told = await server.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])


async def spent(server: Redis, work: Callable[[], Awaitable[object]]) -> float:
    before = await busy(server)
    await work()
    return await busy(server) - before


async def status_and_depth(url: str, server: Redis) -> None:
    """Milliseconds of the server for one look, with so many jobs of 300 KiB waiting."""
    app, times = asking_app(url), 200
    (handle,) = app.tasks
    async with app:
        bus, inspector, waiting = app.bus(), app.bus().engines.jobs.inspector, 0  # type: ignore[union-attr]  # it has one
        for count in WAITING:
            jobs = [await handle.enqueue(BODY) for _ in range(count - waiting)]
            waiting = count

            async def looks(last: str = jobs[-1].id) -> None:
                for _ in range(times):
                    await inspector.look(last)

            async def depths() -> None:
                for _ in range(times):
                    await inspector.depth()

            look, depth = await spent(server, looks), await spent(server, depths)
            print(
                f"{count:5} jobs of 300 KiB wait: status() {look / times * 1e3:.2f} ms, depth()"
                f" {depth / times * 1e3:.2f} ms of the server",
                flush=True,
            )
        assert bus


async def waiters(url: str, server: Redis) -> None:
    """The share of one core that waiters for results cost the server."""
    app = asking_app(url)
    (handle,) = app.tasks
    async with app:
        jobs = [await handle.enqueue("small") for _ in range(100)]
        waiting = [asyncio.ensure_future(jobs[n % 100].result(timeout=120)) for n in range(WAITERS)]
        await asyncio.sleep(5)
        used = await spent(server, lambda: asyncio.sleep(SECONDS))
        print(f"{WAITERS} waiters for results: {used / SECONDS:.0%} of a core of the server")
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def main(url: str) -> None:
    async with Redis.from_url(url) as server:
        await server.flushall()
        await status_and_depth(url, server)
        await server.flushall()
        await waiters(url, server)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
