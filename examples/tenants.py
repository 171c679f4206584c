"""A header decides what is handled, and goes on with every job: `busline run
examples.tenants:app`."""

from typing import Annotated

from busline import INJECTED, App, CallNext, Delivery, Header, Reject
from examples.shop import Order, orders


async def allow(delivery: Delivery, call_next: CallNext) -> object:
    if delivery.headers.get("tenant") not in {"x", "y"}:
        raise Reject("unknown tenant")
    return await call_next(delivery)


app = App("tenants", middleware=[allow], propagate=["tenant"])


@app.task(queue="index")
async def index(order_id: str, tenant: Annotated[str, Header("tenant")] = INJECTED) -> None: ...


@app.subscriber(orders, group="index")
async def on_order(order: Order, tenant: Annotated[str | None, Header("tenant")] = None) -> None:
    await index.enqueue(order.id)
