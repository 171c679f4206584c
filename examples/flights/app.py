"""Flights become statistics by carrier, and every flight that arrives more than three hours late becomes a job."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

from busline import App, Depends, Topic
from examples.flights.ledger import ledger
from examples.flights.model import Flight, MendedFlight
from examples.flights.statistics import Statistics

LATE = 180  # minutes


class Apology(BaseModel):
    flight: str
    minutes: int
    text: str


async def statistics() -> AsyncGenerator[Statistics]:
    table = Statistics(Path(os.environ.get("FLIGHTS_STATISTICS", "statistics.db")))
    yield table
    table.close()


Table = Annotated[Statistics, Depends(statistics, scope="app")]

app = App("flights", middleware=[ledger] if "FLIGHTS_LEDGER" in os.environ else [])
flights: Topic[Flight] = Topic("flights", MendedFlight if "FLIGHTS_MENDED" in os.environ else Flight, key="tailnum")


@app.subscriber(flights)
async def record(flight: Flight, table: Table) -> None:
    table.add(flight)
    if flight.arr_delay is not None and flight.arr_delay > LATE:
        await apologise.options(id=f"late/{flight.id}").enqueue(flight.id, flight.arr_delay)


@app.task(keep_result=86_400)
async def apologise(flight: str, minutes: int) -> Apology:
    return Apology(flight=flight, minutes=minutes, text=f"We are sorry that {flight} was {minutes // 60} hours late.")
