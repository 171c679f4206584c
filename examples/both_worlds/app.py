"""The App: a topic is read, and each photo becomes a job whose result can be asked for."""

import logging

from pydantic import BaseModel, Field

from busline import INJECTED, App, Delivery, Retry, Topic
from examples.both_worlds import telemetry

log = logging.getLogger(__name__)


class Photo(BaseModel):
    id: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class Thumbnail(BaseModel):
    photo: str
    width: int
    height: int


telemetry.begin("photos")
app = App("photos")
uploads = Topic("uploads", Photo, key="id")


@app.subscriber(uploads)
async def ingest(photo: Photo) -> None:
    """Every photo becomes one job, however often its record is read."""
    await shrink.options(id=photo.id).enqueue(photo)


@app.task(retry=Retry(3, delay=0.2))
async def shrink(photo: Photo, delivery: Delivery = INJECTED) -> Thumbnail:
    """The store of photos fails at the first try, as stores do."""
    if delivery.attempt == 1:
        raise ConnectionError(f"the store does not know {photo.id} yet")
    log.info("shrinking %s", photo.id)
    return Thumbnail(photo=photo.id, width=100, height=max(photo.height * 100 // photo.width, 1))
