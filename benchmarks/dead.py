"""What dead letters cost to list, redrive and purge, by how many there are: `python -m
benchmarks.dead 1000 5000 16000`.

Each figure is the time of the whole command, as somebody types it: `busline dead list`, `redrive
--all`, `purge --all`."""

import argparse
import asyncio
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.memory import until
from benchmarks.shop import Order, values
from busline import App, Reject, Topic

ENGINES = ("sqlite", "redis", "kafka")
PARTITIONS = 4
NAME = "BENCH_DEAD"  # the topic's name where records die; without it jobs do


def dead_app() -> App:
    """Everything dies in it."""
    app, name = App("bench"), os.environ.get(NAME)

    async def handle(order: Order) -> None:
        raise Reject("no")

    if name:
        app.subscriber(Topic(name, Order, key="id", partitions=PARTITIONS), order="key")(handle)
    else:
        app.task(handle)
    return app


app = dead_app()


async def fill(count: int) -> float:
    """Lets so many die; letters a second."""
    own = dead_app()
    async with own.running():
        begun = time.perf_counter()
        if own.topics():
            await own.publish_many(own.topics()[0], values(count))
        else:
            await own.enqueue_many(next(iter(own.tasks)).call(order) for order in values(count))
        await until(lambda: sum(one.dead for one in own.bus().counts.values()) == count)
        return count / (time.perf_counter() - begun)


def took(*words: str) -> str:
    """Seconds of a command, and how many of them it computed."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(
        [sys.executable, "-m", "busline", "dead", *words], check=True, stdout=subprocess.DEVNULL
    )
    return (
        f"{time.perf_counter() - begun:.1f}"
        f" ({resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before:.1f})"
    )


def measure(count: int) -> dict[str, str]:
    died = asyncio.run(fill(count))
    figures = {
        "list": took("list", "benchmarks.dead:app", "--limit", "100"),
        "redrive": took("redrive", "benchmarks.dead:app", "--all"),
    }
    asyncio.run(fill(count))
    return figures | {
        "purge": took("purge", "benchmarks.dead:app", "--all", "--yes"),
        "died a second": f"{died:.0f}",
    }


@contextmanager
def engine(name: str, count: int) -> Iterator[None]:
    """One of its own, named by the environment."""
    # they import the clients, and the commands that are measured would wait for that
    from benchmarks import servers

    with tempfile.TemporaryDirectory() as folder:
        if name == "sqlite":
            os.environ |= {
                "BUSLINE_STREAMS": f"sqlite:///{folder}/bus.db",
                "BUSLINE_JOBS": f"sqlite:///{folder}/bus.db",
            }
            yield
            return
        with servers.servers() as (redis, kafka):
            os.environ |= {"BUSLINE_STREAMS": f"{kafka}?create_topics=1", "BUSLINE_JOBS": redis}
            if name == "kafka":
                os.environ[NAME] = f"dead-{count}"
            yield
            os.environ.pop(NAME, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, help="Repeatable; all of them unless named"
    )
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for name in options.engine or ENGINES:
        for count in options.sizes:
            with engine(name, count):
                shown = "  ".join(f"{what} {value}" for what, value in measure(count).items())
            print(f"{name:8} {count:>8,}  {shown}", flush=True)


if __name__ == "__main__":
    main()
