"""What is attacked: functions that write down each run, and send one effect each."""

import asyncio
import os
import random
from typing import Any

from pydantic import BaseModel

from busline import App, Delivery, Topic
from busline.engine import Engine
from busline.task import Task
from tests.faults import ledger

SECONDS = 0.02, 0.12  # that a run takes, so that a fault finds some
PARTITIONS = 6
KEYS = 40


class Item(BaseModel):
    n: int
    key: str


def key_of(n: int) -> str:
    return f"k{n % KEYS}"


async def run(n: int, key: str, place: str) -> None:
    ledger.write("begin", n, key, place)
    await asyncio.sleep(random.uniform(*SECONDS))
    ledger.write("end", n, key, place)


class Streams:
    """Records, each of which gives another one. `mark` tells several on one cluster apart."""

    PATH = "tests.faults.attacked:streams"

    def __init__(self, mark: str, engine: Engine | None = None) -> None:
        self.app = App(f"streams-{mark}", streams=engine)
        self.records = Topic(f"records-{mark}", Item, key="key", partitions=PARTITIONS)
        self.effects = Topic(f"effects-{mark}", Item, key="key", partitions=PARTITIONS)
        self.group = f"streams-{mark}.work"

        @self.app.subscriber(self.records, publish=self.effects, order="key", concurrency=50)
        async def work(item: Item, delivery: Delivery) -> Item:
            await run(item.n, item.key, str(delivery.position))
            return item

        @self.app.subscriber(self.effects)
        async def effect(item: Item) -> None:
            ledger.write("effect", item.n, item.key, "-")


class Jobs:
    """Jobs, each of which sends another one."""

    PATH = "tests.faults.attacked:jobs"

    def __init__(self, engine: Engine | None = None) -> None:
        self.app = App("jobs", jobs=engine)

        @self.app.task(queue="work")
        async def work(n: int) -> None:
            await run(n, "-", f"job/{n}")
            await effect.enqueue(n)

        @self.app.task(queue="effect")
        async def effect(n: int) -> None:
            ledger.write("effect", n, "-", "-")

        self.work: Task[[int], Any, None] = work


streams = Streams(os.environ.get("ATTACK_MARK", "none")).app
jobs = Jobs().app
