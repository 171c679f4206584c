"""A topic written by Java: camel case, extra fields, several types, more types than we know,
tombstones."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from busline import App, Delivery, Key, Topic


class Java(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class OrderPlaced(Java):
    type: Literal["OrderPlaced"] = "OrderPlaced"
    order_id: str


class OrderPaid(Java):
    type: Literal["OrderPaid"] = "OrderPaid"
    order_id: str
    amount_cents: int


OrderEvent = Annotated[OrderPlaced | OrderPaid, Field(discriminator="type")]

events = Topic("order-events", OrderEvent, key=lambda e: e.order_id)
state = Topic("order-state", OrderPlaced | None, compact=True)
app = App("reports", publishes=[events, state])


@app.subscriber(events.only(OrderPaid), group="reports.paid")
async def paid(event: OrderPaid, delivery: Delivery) -> None:
    print(event.amount_cents, delivery.position, delivery.headers_all("ce_id"))


@app.subscriber(state, group="reports.state", order="key", concurrency=50)
async def follow(value: OrderPlaced | None, key: Annotated[str, Key()]) -> None: ...


async def main() -> None:
    await app.publish(events, OrderPaid(order_id="1", amount_cents=5))
    await app.tombstone(state, "1")
