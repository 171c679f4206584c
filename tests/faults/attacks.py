"""Every attack by its name, and the servers it needs."""

import tempfile
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from busline.core.ids import new_id
from tests.faults import on_kafka, on_redis, on_sqlite
from tests.faults.field import Field, Tell, attack
from tests.faults.judge import Verdict, judge
from tests.servers.kafka import Kafka
from tests.servers.redis import running

NODES = 3


@dataclass
class Ground:
    """Folders and servers: each made when an attack first asks, all ended with the stack."""

    stack: ExitStack = field(default_factory=ExitStack)

    def folder(self) -> Path:
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="busline-faults-")))

    @cached_property
    def cluster(self) -> Kafka:
        cluster = Kafka(self.folder(), nodes=NODES)
        self.stack.callback(cluster.stop)
        cluster.start()
        return cluster

    def records(self) -> on_kafka.Records:
        return on_kafka.Records(self.folder(), self.cluster, new_id())

    def brokers(self) -> on_kafka.Brokers:
        return on_kafka.Brokers(self.folder(), self.cluster, new_id())

    def queues(self) -> on_redis.Queues:
        return on_redis.Queues(self.folder(), self.stack.enter_context(running(appendonly="yes")))

    def wired(self) -> on_redis.Wired:
        return on_redis.Wired(self.folder(), self.stack.enter_context(running(appendonly="yes")))

    def file_of_jobs(self) -> on_sqlite.FileOfJobs:
        return on_sqlite.FileOfJobs(self.folder())

    def file_of_records(self) -> on_sqlite.FileOfRecords:
        return on_sqlite.FileOfRecords(self.folder())


@contextmanager
def ground() -> Generator[Ground]:
    with ExitStack() as stack:
        yield Ground(stack)


@dataclass(frozen=True)
class Attack:
    """One kind of fault. `prepare`: where; `inject`: once."""

    name: str
    what: str
    prepare: Callable[[Ground], Field]
    inject: Callable[[Any], Awaitable[None]]

    async def run(self, place: Ground, seconds: float, tell: Tell = lambda _: None) -> Verdict:
        field = self.prepare(place)
        return judge(await attack(field, self.inject, seconds, tell), field.promise)


ATTACKS = [
    Attack(
        "kafka-leader",
        "Kafka: a partition's leader is killed",
        Ground.brokers,
        on_kafka.leader_killed,
    ),
    Attack(
        "kafka-coordinator",
        "Kafka: the group's coordinator is killed",
        Ground.brokers,
        on_kafka.coordinator_killed,
    ),
    Attack(
        "kafka-controller",
        "Kafka: the controller is killed",
        Ground.brokers,
        on_kafka.controller_killed,
    ),
    Attack(
        "kafka-rolling",
        "Kafka: a broker is stopped and started, each in turn",
        Ground.brokers,
        on_kafka.rolling_restart,
    ),
    Attack(
        "kafka-churn",
        "Kafka: a member joins, a member leaves",
        Ground.records,
        on_kafka.members_come_and_go,
    ),
    Attack("kafka-worker", "Kafka: a worker is killed", Ground.records, on_kafka.worker_killed),
    Attack("redis-answers", "Redis: an answer is lost", Ground.wired, on_redis.answers_lost),
    Attack("redis-worker", "Redis: a worker is killed", Ground.queues, on_redis.killed),
    Attack(
        "redis-frozen", "Redis: a worker is frozen past its lease", Ground.queues, on_redis.frozen
    ),
    Attack(
        "redis-restart",
        "Redis: the server is killed and started again, AOF",
        Ground.queues,
        on_redis.server_restarted,
    ),
    Attack(
        "sqlite-jobs",
        "SQLite: a worker on jobs is killed each second",
        Ground.file_of_jobs,
        on_sqlite.kill_each_second,
    ),
    Attack(
        "sqlite-records",
        "SQLite: a worker on records is killed each second",
        Ground.file_of_records,
        on_sqlite.kill_each_second,
    ),
]
