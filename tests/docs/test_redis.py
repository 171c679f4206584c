"""The programs of the page about Redis, as they stand there."""

import asyncio

from busline import App
from busline.app import Setting
from busline.runtime.engines import Engines
from busline.transports.memory import MemoryTransport
from busline.transports.redis import RedisTransport
from tests.docs.test_pages import DOCS, blocks
from tests.docs.test_site import triggers
from tests.servers.redis import Server, redis, shared

__all__ = ["redis", "shared"]


async def test_another_program_enqueues_and_reads(redis: Server) -> None:
    writes, reads = blocks(DOCS / "redis.md", "python")
    app = App("shop")
    engine = RedisTransport(redis.url)

    @app.task
    async def send_receipt(email: str, cents: int) -> str:
        return f"sent to {email}"

    async with app.running_with(Setting(Engines(MemoryTransport(), engine))):
        names: dict[str, object] = {"port": redis.port}
        await asyncio.to_thread(exec, writes, names)
        id = names["id"]
        assert isinstance(id, bytes)
        assert await send_receipt.job(id.decode()).result(10) == "sent to a@b.c"
        await asyncio.to_thread(exec, reads, names)

    assert names["result"] == "sent to a@b.c"


async def test_the_scaler_of_the_page_on_deployment_counts_jobs(redis: Server) -> None:
    app = App("shop", streams="memory://", jobs=redis.url)

    @app.task
    async def send_receipt(email: str) -> None: ...

    async with app:
        await send_receipt.enqueue("a@b.c")

    assert redis.say("LLEN", triggers()["redis"]["listName"]) == b":1\r\n"
