"""A web service that publishes, enqueues and looks: `uvicorn examples.web:api`; `busline run
examples.shop:app` does the work."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from examples.shop import Order, app, orders, send_receipt


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncGenerator[None]:
    async with app:
        yield


api = FastAPI(lifespan=lifespan)


@api.post("/orders")
async def create(order: Order) -> dict[str, str]:
    await app.publish(orders, order, headers={"tenant": "x"})
    job = await send_receipt.options(unique=order.id, headers={"tenant": "x"}).enqueue(
        order.email, order.cents
    )
    return {"job": job.id}


@api.get("/jobs/{id}")
async def look(id: str) -> dict[str, str]:
    return {"state": (await send_receipt.job(id).status()).state}
