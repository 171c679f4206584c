"""The programs of pages that show a whole service do what their pages say."""

import asyncio
import sys
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from busline.testing import in_memory
from tests.docs.test_pages import DOCS, blocks


@pytest.fixture
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A program of a page, the first unless said, as a module."""
    page, number = request.param if isinstance(request.param, tuple) else (request.param, 0)
    module = ModuleType("shown")
    monkeypatch.setitem(sys.modules, "shown", module)
    exec(blocks(DOCS / page, "python")[number], vars(module))
    return module


@pytest.mark.parametrize("shown", ["from-celery.md"], indirect=True)
async def test_a_task_that_comes_from_celery(shown: ModuleType) -> None:
    async with in_memory(shown.app) as bus, asyncio.TaskGroup() as tasks:
        reminded = tasks.create_task(shown.remind())
        await bus.settled()
        assert not reminded.done()
        await bus.advance(10)
        assert await reminded == "sent to a@b.c at attempt 1"


@pytest.mark.parametrize("shown", [("from-celery.md", 1)], indirect=True)
async def test_a_chain_by_hand(shown: ModuleType) -> None:
    async with in_memory(shown.app) as bus:
        await shown.fetch.enqueue("http://a")
        await bus.settled()
        assert bus.enqueued(shown.store) == [{"page": "the page at http://a"}]


@pytest.mark.parametrize("shown", [("from-celery.md", 2)], indirect=True)
async def test_beat_by_hand(shown: ModuleType) -> None:
    async with in_memory(shown.app) as bus:
        again = asyncio.create_task(shown.plan())  # another worker
        while bus.enqueued(shown.tidy) != [{}]:
            await asyncio.sleep(0)
        await bus.advance(48 * 3600)
        assert bus.counts(shown.tidy)["handled"] == 1
        again.cancel()


@pytest.mark.parametrize("shown", ["from-arq.md"], indirect=True)
async def test_a_task_that_comes_from_arq(shown: ModuleType) -> None:
    answers = [httpx.Response(429), httpx.Response(200, text="four")]

    async def http() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(lambda asked: answers.pop(0)))

    async with in_memory(shown.app, override={shown.http: http}) as bus:
        job = await shown.crawl.enqueue("http://example.org")
        await bus.settled()
        assert len(answers) == 1
        await bus.advance(30)
        assert await job.result() == 4


@pytest.mark.parametrize("shown", ["from-faststream.md"], indirect=True)
async def test_a_subscriber_that_comes_from_faststream(shown: ModuleType) -> None:
    async with in_memory(shown.app) as bus:
        await bus.publish(shown.orders, shown.Order(id="a1", cents=5))
        assert bus.published(shown.invoices) == [shown.Invoice(order_id="a1")]


@pytest.mark.parametrize("shown", ["fastapi.md"], indirect=True)
async def test_a_web_service_sends_and_workers_work(
    shown: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSLINE_HOME", str(tmp_path))
    async with (
        shown.lifespan(shown.api),
        httpx.AsyncClient(transport=httpx.ASGITransport(shown.api), base_url="http://api") as web,
    ):
        made = [
            (await web.post("/orders", json={"id": "a1", "email": "a@b.c"})).json()["job"]
            for _ in range(2)
        ]
        look = f"/jobs/{made[0]}"
        assert made[0] == made[1] and (await web.get(look)).json() == {"state": "waiting"}

        await worker(tmp_path)

        assert (await web.get(look)).json() == {"state": "succeeded"}


async def worker(folder: Path) -> None:
    """`busline run api:app`, as the page says, until nothing is left to do."""
    (folder / "api.py").write_text(blocks(DOCS / "fastapi.md", "python")[0])
    words = [sys.executable, "-m", "busline", "run", "api:app", "--until-idle"]
    assert (
        await (
            await asyncio.create_subprocess_exec(
                *words, cwd=folder, stderr=asyncio.subprocess.DEVNULL
            )
        ).wait()
        == 0
    )
