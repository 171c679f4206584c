"""The command on servers: topics that are missing, servers that are away, dead records that run
again as jobs."""

import asyncio
import json
import os

from tests.cli.conftest import Project, read_until
from tests.servers.kafka import Kafka, no_topics
from tests.servers.redis import Server, free_port

APP = """
    from busline import App, Retry, Topic
    from pydantic import BaseModel


    class Order(BaseModel):
        id: str
        cents: int


    app = App("house{mark}")


    @app.subscriber(Topic("orders{mark}", Order, key="id"), retry=Retry(1))
    async def bill(order: Order) -> None:
        if order.cents < 0:
            with open("mended") as _:
                pass


    @app.task
    async def add(a: int, b: int) -> int:
        return a + b
"""


def servers(project: Project, kafka: Kafka, redis: Server, mark: str) -> dict[str, str]:
    asyncio.run(no_topics(kafka.server))  # `dead list` shows whatever ends in .dead
    project.write("house.py", APP.replace("{mark}", mark))
    project.write("pyproject.toml", '[tool.busline]\napp = "house:app"\n')
    return {"BUSLINE_STREAMS": kafka.url, "BUSLINE_JOBS": redis.url}


def test_a_missing_topic_is_waited_for_named_and_made_on_request(
    project: Project, kafka: Kafka, redis: Server
) -> None:
    mark = f"-{os.urandom(4).hex()}"
    env = servers(project, kafka, redis, mark)
    missing = f"'orders{mark}': expected a topic of this name, got none."

    assert (checked := project.run("check", env=env)).returncode == 69 and missing in checked.stderr
    gave_up = project.run("run", "--wait", "1", env=env)
    assert (
        gave_up.returncode == 69
        and missing in gave_up.stderr
        and "--create-topics" in gave_up.stderr
    )

    waiting = project.start("run", env=env)
    read_until(waiting, f"not ready after 5 s, waiting for {missing}")
    kafka.tool("topics", "--create", "--topic", f"orders{mark}")
    assert "(one for each partition, nothing behind)" in read_until(waiting, "runs:")
    waiting.terminate()
    assert waiting.wait(30) == 0
    assert project.run("check", env=env).returncode == 0


def test_the_whole_way_on_kafka_and_redis(project: Project, kafka: Kafka, redis: Server) -> None:
    mark = f"-{os.urandom(4).hex()}"
    env = servers(project, kafka, redis, mark)
    worker = project.start("run", "--create-topics", env=env)
    read_until(worker, "runs:")

    project.run("publish", f"orders{mark}", '{"id": "a", "cents": 5}', env=env)
    project.run("publish", f"orders{mark}", '{"id": "b", "cents": -5}', env=env)
    read_until(worker, "is in the dead letters")
    assert project.run("enqueue", "add", '{"a": 1, "b": 2}', "--wait", env=env).stdout == "3\n"
    seen = json.loads(project.run("inspect", "--json", env=env).stdout)
    assert seen["dead"] == {"bill": 1}
    assert [(one["topic"], one["partitions"], one["members"]) for one in seen["groups"]] == [
        (f"orders{mark}", 3, 1)
    ]

    project.write("mended")
    assert json.loads(
        project.run("dead", "redrive", "--handler", "bill", "--json", env=env).stdout
    ) == {"redriven": 1, "refused": []}
    worker.terminate()
    assert worker.wait(30) == 0
    done = project.run("run", "--until-idle", env=env)
    assert done.returncode == 0
    assert project.run("dead", "list", env=env).stdout == "no dead letters\n"


def test_a_server_that_is_away_ends_with_69_and_one_text(
    project: Project, kafka: Kafka, redis: Server
) -> None:
    servers(project, kafka, redis, "")
    away = {
        "BUSLINE_STREAMS": kafka.url,
        "BUSLINE_JOBS": f"redis://:s3cret@127.0.0.1:{free_port()}",
    }

    for words in (
        ("check",),
        ("inspect",),
        ("enqueue", "add", '{"a": 1, "b": 2}'),
        ("dead", "list"),
        ("run", "--wait", "0.5"),
    ):
        done = project.run(*words, env=away)
        assert done.returncode == 69, (words, done.stderr)
        assert "expected an answer" in done.stderr and "s3cret" not in done.stderr + done.stdout
        assert len(done.stderr.splitlines()) == 1, done.stderr
