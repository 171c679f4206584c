"""The way in and out: `uvicorn examples.both_worlds.api:api`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException

from busline import NoResult
from examples.both_worlds import telemetry
from examples.both_worlds.app import Photo, Thumbnail, app, shrink, uploads


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncGenerator[None]:
    async with app:
        yield


api = FastAPI(lifespan=lifespan)
telemetry.watch(api)


@api.post("/photos", status_code=202)
async def upload(photo: Photo) -> dict[str, str]:
    await app.publish(uploads, photo)
    return {"thumbnail": f"/thumbnails/{photo.id}"}


@api.get("/thumbnails/{id}")
async def thumbnail(id: str) -> Thumbnail:
    try:
        return await shrink.job(id).result(timeout=10)
    except NoResult as error:
        raise HTTPException(404, str(error)) from error
