"""`./scripts/bench`: every figure of docs/benchmarks.md, arms in turn, medians of several
rounds."""

import argparse
import asyncio
import gc
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from benchmarks import calls, jobs, latency, memory, watching

CALLS_AT = 2_000
WATCHED = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="1: as published; 0.1: a quick look"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--servers", action="store_true", help="Redis and Kafka instead, which are started for it"
    )
    parser.add_argument(
        "-v", action="store_true", help="which of our functions are called for one message"
    )
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.servers:
        return show(on_servers(options.rounds, options.scale), options.json)
    found = measure(options.rounds, options.scale)
    counted = asyncio.run(calls.calls(CALLS_AT))
    figures = summary(found, options.scale) | {
        "own Python calls a message": round(sum(counted.values()) / CALLS_AT, 2)
    }
    if options.v:
        for name, n in counted.most_common(30):
            print(f"{n / CALLS_AT:7.2f}  {name}", file=sys.stderr)
    show(figures, options.json)


def show(figures: dict[str, float], as_json: bool) -> None:
    print(
        json.dumps(figures)
        if as_json
        else "\n".join(f"{name:56} {value:>14,}" for name, value in figures.items())
    )


def on_servers(rounds: int, scale: float) -> dict[str, float]:
    from benchmarks import servers

    found: dict[str, list[float]] = {}
    with servers.servers() as (redis, kafka):
        for _ in range(rounds):
            measured = asyncio.run(servers.jobs(redis, int(100_000 * scale)))
            measured["redis bare"] = asyncio.run(servers.bare_jobs(redis, int(100_000 * scale)))
            measured |= asyncio.run(servers.records(kafka, int(400_000 * scale)))
            for name, value in measured.items():
                found.setdefault(name, []).append(value)
    middle = {name: round(median(values)) for name, values in found.items()}
    return {
        "redis: jobs/s consumed": middle["redis consume"],
        "redis: a bare loop, jobs/s": middle["redis bare"],
        "redis: jobs/s enqueued in bulk": middle["redis bulk"],
        "redis: bytes of a waiting job": middle["redis bytes"],
        "kafka: records/s consumed, by key": middle["kafka consume"],
        "kafka: a bare loop, records/s": middle["kafka bare"],
        "kafka: records/s published, keyed and confirmed": middle["kafka publish"],
    }


def measure(rounds: int, scale: float) -> dict[str, list[float]]:
    """Every arm once a round, one after the other."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, arm in arms(scale).items():
            gc.collect()
            value = arm()
            for key, one in value.items() if isinstance(value, dict) else [(name, value)]:
                found.setdefault(key, []).append(one)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return found


def scaled(scale: float, count: int) -> int:
    """How many messages a run at this scale has."""
    return max(int(count * scale), 1000)


def arms(scale: float) -> dict[str, Callable[[], Any]]:
    many = partial(scaled, scale)
    return {
        "memory": lambda: asyncio.run(memory.busline(many(60_000))),
        "bare": lambda: asyncio.run(memory.bare(many(60_000))),
        "jobs": lambda: dict(
            zip(
                ("bulk", "consume"),
                asyncio.run(jobs.enqueue_and_consume(many(60_000))),
                strict=True,
            )
        ),
        "huey": lambda: jobs.huey(many(5_000)),
        "one by one": lambda: asyncio.run(jobs.one_by_one(many(1_000))),
        "latency": lambda: asyncio.run(latency.measure(many(1_000) // 2, 5 * scale)),
        "watching": lambda: asyncio.run(watching.each(many(WATCHED))),
        "import": lambda: took("-c", "import busline"),
        "import App": lambda: took("-c", "from busline import App"),
        "version": lambda: took("-m", "busline", "--version"),
        "python": lambda: took("-c", "pass"),
    }


def took(*command: str) -> float:
    """Seconds of a whole Python process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def summary(found: dict[str, list[float]], scale: float) -> dict[str, float]:
    """Medians, and ratios of arms of the same round."""
    middle = {name: median(values) for name, values in found.items()}

    def ratio(one: str, other: str) -> float:
        return median(a / b for a, b in zip(found[one], found[other], strict=True))

    def dearer(one: str) -> float:
        """Microseconds a message, against one that nobody watches."""
        return median(
            (a - b) / scaled(scale, WATCHED) * 1e6
            for a, b in zip(found[one], found["plain"], strict=True)
        )

    return {
        "metrics: microseconds a message": round(dearer("metrics"), 2),
        "tracing: microseconds a message": round(dearer("tracing"), 1),
        "a span made by the function: microseconds a message": round(dearer("span"), 1),
        "tracing: time of all, against the function's own span": round(ratio("tracing", "span"), 2),
        "memory: messages/s, published and consumed": round(middle["memory"]),
        "memory: a bare loop, messages/s": round(middle["bare"]),
        "memory: per cent of the bare loop": round(100 * ratio("memory", "bare")),
        "sqlite: jobs/s consumed": round(middle["consume"]),
        "huey on SQLite: jobs/s consumed": round(middle["huey"]),
        "sqlite: times huey": round(ratio("consume", "huey"), 1),
        "sqlite: jobs/s enqueued in bulk": round(middle["bulk"]),
        "sqlite: one enqueue, awaited, microseconds": round(1e6 * middle["one by one"]),
        "sqlite: publish to handler in another process, p50 ms": round(middle["latency p50"], 2),
        "sqlite: the same, p99 ms": round(middle["latency p99"], 2),
        "idle `busline run`, per cent of a core": round(middle["idle"], 2),
        "from busline import App, ms": round(1000 * middle["import App"]),
        "import busline, ms": round(1000 * middle["import"]),
        "busline --version, ms": round(1000 * middle["version"]),
        "python -c pass, ms": round(1000 * middle["python"]),
    }


if __name__ == "__main__":
    main()
