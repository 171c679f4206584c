"""Three processes and two servers, one trace: request, record, handler, job, retry, result."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from examples.both_worlds.app import Photo, Thumbnail, app, shrink, uploads

from busline.testing import in_memory
from tests.servers.kafka import Kafka
from tests.servers.redis import Server, free_port, redis, shared

__all__ = ["redis", "shared"]
ROOT = Path(__file__).parents[2]
PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"


@contextmanager
def started(*words: str, **environment: str) -> Generator[subprocess.Popen[bytes]]:
    """A process of Python, ended by SIGTERM, which it has to obey."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=os.environ | environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)


def answered(url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """As soon as something answers there, and well."""
    limit = monotonic() + 60
    while True:
        try:
            answer = httpx.get(url, headers=headers, timeout=20)
            if answer.status_code == 200:
                return answer
        except httpx.TransportError:
            pass
        assert monotonic() < limit, url
        sleep(0.1)


def read(file: Path) -> dict[str, list[Mapping[str, Any]]]:
    """The spans of our trace by name, in the order they began."""
    spans = sorted(
        (json.loads(line) for line in file.read_text().splitlines()),
        key=lambda one: str(one["start_time"]),
    )
    found: dict[str, list[Mapping[str, Any]]] = {}
    for span in spans:
        if span["context"]["trace_id"] == f"0x{PARENT}":
            found.setdefault(span["name"], []).append(span)
    return found


def own(span: Mapping[str, Any]) -> str:
    return str(span["context"]["span_id"])


@pytest.mark.server
def test_one_trace_goes_through_http_kafka_and_redis(
    kafka: Kafka, redis: Server, tmp_path: Path
) -> None:
    spans, port, health = tmp_path / "traces.jsonl", free_port(), free_port()
    environment = {"BUSLINE_STREAMS": kafka.url, "BUSLINE_JOBS": redis.url, "TRACES": str(spans)}
    header = {"traceparent": f"00-{PARENT}-00f067aa0ba902b7-01"}
    with (
        started(
            "busline",
            "run",
            "examples.both_worlds.app:app",
            "--create-topics",
            "--http",
            f"127.0.0.1:{health}",
            **environment,
        ),
        started("uvicorn", "examples.both_worlds.api:api", "--port", str(port), **environment),
    ):
        answered(f"http://127.0.0.1:{health}/readyz")
        answered(f"http://127.0.0.1:{port}/openapi.json")
        sent = httpx.post(
            f"http://127.0.0.1:{port}/photos",
            json={"id": "p1", "width": 800, "height": 600},
            headers=header,
            timeout=20,
        )
        got = answered(f"http://127.0.0.1:{port}{sent.json()['thumbnail']}", header)

    assert (sent.status_code, got.json()) == (202, {"photo": "p1", "width": 100, "height": 75})
    found = read(spans)
    (post,), (send,), (ingest,), (create,) = (
        found[name] for name in ("POST /photos", "send uploads", "process uploads", "create photos")
    )
    first, second = found["process photos"]
    assert [one["parent_id"] for one in (post, send, ingest, create)] == [
        "0x00f067aa0ba902b7",
        own(post),
        own(send),
        own(ingest),
    ]
    assert [one["parent_id"] for one in (first, second)] == [own(create)] * 2
    assert [link["context"]["span_id"] for link in second["links"]] == [own(first)]
    assert [one["status"]["status_code"] for one in (first, second)] == ["ERROR", "UNSET"]
    get, received = found["GET /thumbnails/{id}"][-1], found["receive photos"][-1]
    assert (
        received["parent_id"] == own(get) and received["attributes"]["messaging.message.id"] == "p1"
    )
    names = {
        "POST /photos",
        "send uploads",
        "process uploads",
        "create photos",
        "process photos",
        "GET /thumbnails/{id}",
        "receive photos",
    }
    assert found.keys() == names, "and not one from the clients themselves"


async def test_a_photo_becomes_a_thumbnail_at_the_second_try() -> None:
    async with in_memory(app) as bus:
        await bus.publish(uploads, Photo(id="p1", width=800, height=600))
        await bus.publish(uploads, Photo(id="p1", width=800, height=600))
        await bus.advance(1)

        assert await shrink.job("p1").result() == Thumbnail(photo="p1", width=100, height=75)
        assert (bus.counts(shrink)["handled"], bus.counts(shrink)["retried"]) == (1, 1)
