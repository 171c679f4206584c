"""Jobs over Redis and records over Kafka, each against a bare loop on the same server:
`./scripts/bench --servers`.

The servers are started here, on free ports, and ended.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import TypeAdapter
from redis.asyncio import Redis as Client
from tests.servers.kafka import Kafka
from tests.servers.redis import running

from benchmarks.memory import until
from benchmarks.shop import Order, seen, values
from busline import App, Topic

PARTITIONS = 4
validate = TypeAdapter(Order).validator.validate_json


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """The URLs of a Redis and a Kafka."""
    with tempfile.TemporaryDirectory() as folder, running() as redis:
        kafka = Kafka(Path(folder), partitions=PARTITIONS)
        kafka.start()
        try:
            yield redis.url, kafka.url
        finally:
            kafka.stop()


# --- Redis -----------------------------------------------------------------------------------


async def jobs(url: str, count: int) -> dict[str, float]:
    """Jobs a second: enqueued in bulk, consumed by an App that starts afterwards; bytes that one
    takes while it waits."""
    app = App("bench", jobs=url)
    seen.ids.clear()

    @app.task
    async def handle(id: str, email: str, cents: int) -> None:
        seen.ids.add(id)

    async with Client.from_url(url) as client:
        await client.flushall()
        before = (await client.info("memory"))["used_memory"]
        async with app:
            begun = time.perf_counter()
            await app.enqueue_many(handle.call(f"a{n}", "a@b.c", n) for n in range(count))
            enqueued = count / (time.perf_counter() - begun)
        size = ((await client.info("memory"))["used_memory"] - before) / count
    begun = time.perf_counter()
    async with app.running():
        await until(lambda: len(seen.ids) == count)
        return {
            "redis bulk": enqueued,
            "redis consume": count / (time.perf_counter() - begun),
            "redis bytes": size,
        }


async def bare_jobs(url: str, count: int) -> float:
    """A list, popped a hundred at a time into a hash and deleted from it when done: no names,
    retries, leases, results."""
    seen.ids.clear()
    encode = TypeAdapter(Order).dump_json
    client: Any = Client.from_url(url)  # annotated in part
    async with client:
        await client.flushall()
        for start in range(0, count, 1000):
            await client.rpush(
                "jobs", *[encode(one) for one in values(count)[start : start + 1000]]
            )
        begun, loop = time.perf_counter(), asyncio.get_running_loop()
        while taken := await client.lpop("jobs", 100):
            await client.hset("hand", mapping={str(n): one for n, one in enumerate(taken)})
            await asyncio.gather(*[loop.create_task(_handle(validate(one))) for one in taken])
            await client.hdel("hand", *map(str, range(len(taken))))
        return count / (time.perf_counter() - begun)


async def _handle(order: Order) -> None:
    seen.ids.add(order.id)


# --- Kafka -----------------------------------------------------------------------------------


async def records(url: str, count: int) -> dict[str, float]:
    """Records a second: published with keys and confirmed, consumed by order of their keys."""
    topic: Topic[Order] = Topic(f"orders-{os.urandom(4).hex()}", Order, key="id")
    app = App("bench", streams=f"{url}?create_topics=1")
    seen.ids.clear()

    @app.subscriber(topic, order="key", concurrency=100)
    async def handle(order: Order) -> None:
        seen.ids.add(order.id)

    batch = values(count)
    async with app:
        await app.publish_many(topic, batch[:1])
        begun = time.perf_counter()
        await app.publish_many(topic, batch[1:])
        published = (count - 1) / (time.perf_counter() - begun)
    consumed = await _consumed(app, count)
    return {
        "kafka publish": published,
        "kafka consume": consumed,
        "kafka bare": await _bare_records(url, topic.name, count),
    }


async def _consumed(app: App, count: int) -> float:
    """From the first record: joining a group takes its time, and is another figure."""
    async with app.running():
        await until(lambda: len(seen.ids) > 0)
        first, begun = len(seen.ids), time.perf_counter()
        await until(lambda: len(seen.ids) == count)
        return (count - first) / (time.perf_counter() - begun)


async def _bare_records(url: str, topic: str, count: int) -> float:
    """The client's `getmany` and the validation: no group, no order beyond the partition's, nothing
    committed."""
    seen.ids.clear()
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=url.removeprefix("kafka://"), auto_offset_reset="earliest"
    )
    consumer.assign([TopicPartition(topic, part) for part in range(PARTITIONS)])
    await consumer.start()
    begun, read = 0.0, 0
    while read < count:
        for found in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            begun = begun or time.perf_counter()
            for record in found:
                await _handle(validate(record.value))
            read += len(found)
    took = time.perf_counter() - begun
    await consumer.stop()
    return count / took
