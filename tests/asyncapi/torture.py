"""An App with everything that a type can be."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from busline import INJECTED, App, Delivery, Header, Key, Router, Topic
from tests.asyncapi import twin

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(TypedDict):
    x: float
    y: float


@dataclass
class Span:
    start: date
    end: date | None = None


class Tree(BaseModel):
    """A tree of trees."""

    name: str
    children: list["Tree"] = []


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int = Field(ge=0, multiple_of=2)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(gt=0, le=9)] = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, Field(min_length=3)]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Order(BaseModel):
    """An order, as the shop sees it."""

    id: UUID
    at: datetime
    price: Decimal
    colours: set[Colour]
    where: Point | None = None
    pair: tuple[int, str] = (1, "one")
    raw: bytes = b""
    took: timedelta = timedelta(0)
    discriminator: str = "a property of that name"
    customer_id: int = Field(alias="customerId")
    tags: frozenset[str] = Field(
        frozenset({"alpha", "beta", "gamma", "delta"}), examples=[{"one", "two", "three", "four"}]
    )
    baskets: dict[str, list[set[Colour]] | None] = Field({"first": [set(Colour)], "none": None})


app = App("torture & </script>", namespace="team a")
orders = Topic("orders.v1", Order, key="customer_id", partitions=6, compact=True)
pets: Topic[Cat | Dog] = Topic("pets", Pet)
trees = Topic("trees", Tree)
pages: Topic[Page[Tree]] = Topic("pages", Page[Tree])
spans = Topic("spans", Span)
twins = Topic("twins", twin.Order)
router, inner = Router(prefix="warehouse."), Router(prefix="north.")
router.include(inner)
app.include(router)


@app.subscriber(orders, publish=trees)
async def plant(
    order: Order,
    tenant: Annotated[str, Header()],
    trace: Annotated[str | None, Header("x-trace")],
    key: Annotated[str, Key()],
) -> Tree:
    """Plants a tree for each order.

    The tree has the order's name.
    """
    return Tree(name=str(order.id))


@app.subscriber(orders, group="other", order="key")
async def count(order: Order) -> None: ...


@inner.subscriber(pets.only(Cat), publish=pages)
async def pet(cat: Cat) -> Page[Tree]:
    return Page(items=[], total=0)


@app.subscriber(spans | twins)
async def both(value: Span | twin.Order) -> None: ...


@app.task(name="send it/now", queue="slow lane")
async def send(
    order: Order, colours: dict[str, Colour], limit: int = 3, delivery: Delivery = INJECTED
) -> list[Point]:
    """Sends it."""
    return []


@router.task
async def nothing() -> None: ...
