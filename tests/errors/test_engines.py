"""Engines that cannot be used: wrong names, servers that are away or refuse. Each is one clear text
without secrets."""

import asyncio
import os
import sys
import time

import pytest

from busline import App, BuslineError, Kafka, Redis, Sqlite, Topic, Unavailable
from busline.engine import engine
from tests.servers.kafka import Kafka as Broker
from tests.servers.redis import free_port, running

NOWHERE = "127.0.0.1:9"
ORDERS = Topic("orders", dict[str, int])


def make(streams: object = None, jobs: object = None) -> App:
    """An App that needs both engines."""
    app = App("shop", streams=streams, jobs=jobs)  # type: ignore[arg-type]  # some are wrong

    @app.subscriber(ORDERS)
    async def bill(order: dict[str, int]) -> None: ...

    @app.task
    async def send() -> None: ...

    return app


async def said(app: App) -> str:
    app.setting.patience = 0
    with pytest.raises(BuslineError) as caught:
        async with app:
            await app.bus().every_engine()
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "amqp://me:s3cret@host",
            (
                "'amqp://host': expected memory://, sqlite:///relative, sqlite:////absolute,"
                " redis://host or kafka://host,host, got 'amqp://'."
            ),
        ),
        (
            "rediss://me:s3cret@host",
            (
                "'rediss://host': expected redis://, got rediss://. An encrypted connection is not"
                " there yet."
            ),
        ),
        (
            "kafka+ssl://host:9093",
            (
                "'kafka+ssl://host:9093': expected kafka://, got kafka+ssl://. An encrypted"
                " connection is not there yet."
            ),
        ),
        (
            "kafka://host?sesion=3",
            (
                "'kafka://host': expected session= or drain= or patience= or span= or"
                " create_topics= after the `?`, got sesion=. Correct it, or leave it out."
            ),
        ),
        (
            "kafka://host?create_topics=maybe",
            (
                "expected session= or drain= or patience= or span= or create_topics= after the `?`,"
                " got create_topics=maybe"
            ),
        ),
        (
            "redis://host?lease=long",
            "'redis://host': expected lease= or namespace= after the `?`, got lease=long.",
        ),
    ],
)
def test_a_wrong_url_is_one_text(url: str, expected: str) -> None:
    with pytest.raises(BuslineError) as caught:
        engine(url)
    assert expected in str(caught.value) and "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("streams", "jobs", "expected"),
    [
        (
            f"redis://{NOWHERE}",
            f"redis://{NOWHERE}",
            (
                "'streams': expected an engine with topics: memory, sqlite or kafka, got"
                f" redis://{NOWHERE} (named by the App). Correct BUSLINE_STREAMS or App(streams=)."
            ),
        ),
        (
            Kafka(NOWHERE),
            Kafka(NOWHERE),
            (
                "'jobs': expected an engine with queues: memory, sqlite or redis, got"
                f" kafka://{NOWHERE} (named by the App). Correct BUSLINE_JOBS or App(jobs=)."
            ),
        ),
        (
            Kafka(NOWHERE),
            None,
            (
                f"'jobs': expected a named engine beside kafka://{NOWHERE} (named by the App), got"
                " none. Set BUSLINE_JOBS or App(jobs=): sqlite:///path is a name too."
            ),
        ),
        (
            None,
            Redis(f"redis://:s3cret@{NOWHERE}"),
            (
                f"'streams': expected a named engine beside redis://{NOWHERE} (named by the App),"
                " got none. Set BUSLINE_STREAMS or App(streams=): sqlite:///path is a name too."
            ),
        ),
    ],
)
async def test_an_engine_for_what_it_cannot_carry(
    streams: object, jobs: object, expected: str
) -> None:
    assert await said(make(streams, jobs)) == expected


async def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("busline.transports.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiokafka", None)

    assert (
        await said(make("kafka://host", "memory://"))
        == "'kafka://': expected its client, an extra of busline, got no module 'aiokafka'. Type:"
        ' pip install "pybusline[kafka]"'
    )


@pytest.mark.parametrize("which", ["redis", "kafka"])
async def test_a_server_that_is_away_is_waited_for_and_named(which: str) -> None:
    place = f"127.0.0.1:{free_port()}"
    app = (
        make("memory://", f"redis://:s3cret@{place}")
        if which == "redis"
        else make(f"kafka://{place}", "memory://")
    )
    app.setting.patience = 0.5
    begun = time.monotonic()

    with pytest.raises(Unavailable) as caught:
        async with app:
            await app.bus().every_engine()

    assert time.monotonic() - begun >= 0.5
    assert place in str(caught.value) and "s3cret" not in str(caught.value)


@pytest.mark.server
async def test_a_redis_that_comes_in_time_is_used() -> None:
    with running() as server:
        server.kill()
        app = make("memory://", server.url)
        async with app:
            sending = asyncio.ensure_future(next(iter(app.tasks)).enqueue())
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            await sending


async def test_who_only_enqueues_does_not_care_whether_kafka_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = f"127.0.0.1:{free_port()}"
    app = make(f"kafka://{place}", "memory://")
    app.setting.patience = 0.0
    (task,) = app.tasks

    async with app:
        job = await task.enqueue()
        with pytest.raises(Unavailable, match=place):
            await app.publish(ORDERS, {})
        await asyncio.gather(task.enqueue(), task.enqueue())
        with pytest.raises(Unavailable, match=place):
            await app.publish(ORDERS, {})
        assert (await job.status()).state == "waiting"

    assert not [one for one in caplog.records if one.name.startswith("aiokafka")]


async def test_a_send_that_is_cancelled_leaves_the_opening_to_the_others() -> None:
    app = make(f"kafka://127.0.0.1:{free_port()}", "memory://")
    app.setting.patience = 0.3

    async with app:
        first, second = (asyncio.ensure_future(app.publish(ORDERS, {})) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(Unavailable):
            await second


@pytest.mark.server
async def test_a_password_that_is_wrong() -> None:
    with running(requirepass="right") as server:
        text = await said(make("memory://", f"redis://:s3cret@127.0.0.1:{server.port}"))
        async with (
            make("memory://", f"redis://:right@127.0.0.1:{server.port}"),
            make("memory://", Redis(server.url, password="right")),
        ):
            pass

    assert text.startswith(f"'redis://127.0.0.1:{server.port}': expected ")


async def test_a_topic_that_is_missing_is_named_with_what_makes_it(kafka: Broker) -> None:
    app = App("shop", streams=f"{kafka.url}", publishes=[Topic(f"missing-{os.getpid()}", int)])

    with pytest.raises(Unavailable) as caught:
        async with app.running():
            pass

    assert (
        str(caught.value)
        == f"'missing-{os.getpid()}': expected a topic of this name, got none. Create it with"
        " Kafka's own tools, or let busline do it: --create-topics."
    )


async def test_sqlite_has_one_name_for_one_file(tmp_path: object) -> None:
    assert str(Sqlite(f"{tmp_path}/x/../bus.db")) == str(Sqlite(f"{tmp_path}/bus.db"))


@pytest.mark.parametrize(
    "url", ["redis://host?password=s3cret", "redis:/:s3cret@host", "redis://user:a?s3cret@host"]
)
def test_a_wrong_url_keeps_its_secret(url: str) -> None:
    with pytest.raises(BuslineError) as caught:
        engine(url)

    assert "s3cret" not in str(caught.value)
