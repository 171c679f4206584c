"""A flight as the airport publishes it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, field_validator


class Flight(BaseModel):
    """One departure. A cancelled flight never left; some left and have no arrival delay, because they were diverted."""

    time_hour: datetime
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    dep_time: int | None
    dep_delay: int | None
    arr_delay: int | None

    @property
    def cancelled(self) -> bool:
        return self.dep_time is None

    @property
    def id(self) -> str:
        return f"{self.time_hour:%Y-%m-%dT%H}/{self.carrier}/{self.flight}"


class MendedFlight(Flight):
    """The model after the fix: one airport writes its delays as text, such as "11 min"."""

    @field_validator("dep_delay", "arr_delay", mode="before")
    @classmethod
    def without_unit(cls, value: Any) -> Any:
        return value.removesuffix(" min") if isinstance(value, str) else value
