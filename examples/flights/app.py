"""Flights become statistics by carrier; each that arrives more than three hours late is explained
by a job."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

from busline import INJECTED, App, Delivery, Depends, Retry, Topic
from examples.flights.ledger import ledger
from examples.flights.model import FixedFlight, Flight
from examples.flights.statistics import Statistics

LATE = 180  # minutes
FIXED = os.environ.get("FLIGHTS_MODEL") == "fixed"  # in real life: the next version of this file


class Explanation(BaseModel):
    """Where the minutes of a late flight came from."""

    flight: str
    minutes: int
    before_departure: int
    text: str


async def open_statistics() -> AsyncGenerator[Statistics]:
    statistics = Statistics(Path(os.environ.get("FLIGHTS_STATISTICS", "statistics.db")))
    yield statistics
    statistics.close()


app = App("flights", middleware=[ledger] if "FLIGHTS_LEDGER" in os.environ else [])
flights: Topic[Flight] = Topic("flights", FixedFlight if FIXED else Flight, key="tailnum")


@app.subscriber(flights)
async def record(
    flight: Flight, statistics: Annotated[Statistics, Depends(open_statistics, scope="app")]
) -> None:
    statistics.add(flight)  # again, it changes nothing: delivery is at least once
    if flight.arr_delay is not None and flight.arr_delay > LATE:
        # leaves when this function has returned
        await explain.options(id=f"late/{flight.id}").enqueue(flight)


@app.task(retry=Retry(5, delay=0.5), keep_result=86_400)
async def explain(flight: Flight, delivery: Delivery = INJECTED) -> Explanation:
    if delivery.attempt == 1 and flight.flight % 3 == 0:
        # made up, so that the demo has something to retry
        raise ConnectionError("the weather service is busy")
    minutes, before = flight.arr_delay or 0, flight.dep_delay or 0
    text = (
        f"{flight.carrier} {flight.flight} left {before} min late and {made_up(before - minutes)}."
    )
    return Explanation(flight=flight.id, minutes=minutes, before_departure=before, text=text)


def made_up(minutes: int) -> str:
    return (
        f"made up {minutes} min in the air" if minutes >= 0 else f"lost {-minutes} more in the air"
    )
