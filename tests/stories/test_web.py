"""The second golden program: a web service beside the worker, on every pair of engines."""

import httpx
import pytest
from examples.shop import app, bill, send_receipt
from examples.web import api

from busline import Delivery
from tests.stories.conftest import EVERY_PAIR, Tell

pytestmark = pytest.mark.parametrize("tell", EVERY_PAIR, indirect=True)
ORDER = {"id": "a1", "email": "a@b.c", "cents": 0}


async def test_a_post_publishes_once_and_its_job_can_be_followed(tell: Tell) -> None:
    seen: list[tuple[str, str]] = []

    async def noted(order: object, delivery: Delivery) -> None:
        seen.append((delivery.id, delivery.headers["tenant"]))

    async with (
        tell(app, override={bill: noted}) as story,
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api") as web,
    ):
        job = (await web.post("/orders", json=ORDER)).json()["job"]
        await story.settled()

        assert (await web.get(f"/jobs/{job}")).json() == {"state": "succeeded"}
        assert len(seen) == 1 and seen[0][1] == "x"


async def test_the_same_order_twice_while_its_mail_waits_gives_one_job(tell: Tell) -> None:
    begun: list[str] = []

    async def fails(email: str, cents: int) -> str:
        begun.append(email)
        raise ConnectionError("no mail today")

    async with (
        tell(app, override={send_receipt: fails}) as story,
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api") as web,
    ):
        first = (await web.post("/orders", json=ORDER)).json()["job"]
        await story.settled()  # it failed once, and waits for its retry

        assert (await web.post("/orders", json=ORDER)).json()["job"] == first
        assert (await web.get(f"/jobs/{first}")).json() == {"state": "delayed"}
        again = await send_receipt.options(unique="a1").enqueue("a@b.c", 0)
        assert again.id == first and not again.created
        assert begun == ["a@b.c"]
