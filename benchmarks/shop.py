"""The App that is measured: the public face with its default settings."""

from pydantic import BaseModel

from busline import App, Delivery, Topic


class Order(BaseModel):
    id: str
    email: str
    cents: int


class Seen:
    """Which messages were handled, each counted once."""

    def __init__(self) -> None:
        self.ids: set[str] = set()


seen = Seen()
orders = Topic("orders", Order, key=lambda order: order.id)


def values(count: int) -> list[Order]:
    return [Order(id=f"a{n}", email="a@b.c", cents=n) for n in range(count)]


def stream_app() -> App:
    app = App("bench", streams="memory://")

    @app.subscriber(orders, timeout=30)
    async def bill(order: Order, delivery: Delivery) -> None:
        seen.ids.add(order.id)

    return app
