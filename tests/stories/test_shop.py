"""The first golden program, on every engine: orders become invoices and receipts."""

import pytest
from examples.shop import Invoice, Order, app, bill, invoices, orders, send_receipt

from tests.stories.conftest import EVERY_PAIR, Story, Tell

pytestmark = pytest.mark.parametrize("tell", EVERY_PAIR, indirect=True)
ORDER = Order(id="a1", email="a@b.c", cents=500)


async def records(story: Story) -> int:
    return sum(one.behind for one in await story.streams.inspector.lag() if one.topic == "invoices")


async def test_one_order_gives_one_invoice_and_one_mail(tell: Tell) -> None:
    async with tell(app) as story:
        await story.publish(orders, ORDER)

        assert story.counts("bill").handled == 1
        assert story.counts("send_receipt").handled == 1


async def test_an_order_of_nothing_gives_neither(tell: Tell) -> None:
    async with tell(app) as story:
        await story.publish(orders, Order(id="a1", email="a@b.c", cents=0))

        assert story.counts("bill").handled == 1
        assert story.counts("send_receipt").handled == 0


async def test_a_mail_whose_task_raises_runs_again_and_succeeds(tell: Tell) -> None:
    runs: list[str] = []

    async def breaks_once(email: str, cents: int) -> str:
        runs.append(email)
        if len(runs) == 1:
            raise ConnectionError("no mail today")
        return "sent"

    async with tell(app, override={send_receipt: breaks_once}) as story:
        await story.publish(orders, ORDER)
        assert len(runs) == 1

        await story.advance(60)

        assert len(runs) == 2 and story.counts("send_receipt").handled == 1


async def test_a_failed_bill_sends_no_mail_and_no_invoice(tell: Tell) -> None:
    async def breaks(order: Order) -> Invoice | None:
        await send_receipt.enqueue(order.email, order.cents)
        await app.publish(invoices, Invoice(order_id=order.id, cents=1))
        raise ValueError("out of ink")

    async with tell(app, override={bill: breaks}) as story:
        await story.publish(orders, ORDER)
        await story.advance(60)

        letter = (await story.dead())[0]
        assert (letter.handler, letter.error_type, letter.error, letter.attempts) == (
            "bill",
            "ValueError",
            "out of ink",
            3,
        )
        assert story.counts("send_receipt").handled == 0


async def test_a_redriven_order_is_billed_after_the_fix(tell: Tell) -> None:
    broken = [True]

    async def was_broken(order: Order) -> Invoice | None:
        if broken[0]:
            raise ValueError("out of ink")
        return Invoice(order_id=order.id, cents=order.cents)

    async with tell(app, override={bill: was_broken}) as story:
        await story.publish(orders, ORDER)
        await story.advance(60)
        broken[0] = False

        assert await story.redrive() == 1
        assert await story.dead() == [] and story.counts("bill").handled == 1
