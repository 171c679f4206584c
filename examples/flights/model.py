"""A flight as the airports publish it, before and after the fix."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator


class Flight(BaseModel):
    """One planned departure. Cancelled, it has no times at all; diverted, it left and has no
    arrival delay."""

    time_hour: datetime
    carrier: Annotated[str, Field(pattern="^[A-Z0-9]{2}$", examples=["UA"])]
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    dep_time: int | None
    dep_delay: int | None  # minutes, as the next
    arr_delay: int | None

    @model_validator(mode="after")
    def cancelled_has_no_delay(self) -> Self:
        if self.cancelled and (self.dep_delay is not None or self.arr_delay is not None):
            raise ValueError("a flight without dep_time never left, and has no delays")
        return self

    @property
    def cancelled(self) -> bool:
        return self.dep_time is None

    @property
    def diverted(self) -> bool:
        return not self.cancelled and self.arr_delay is None

    @property
    def id(self) -> str:
        return f"{self.time_hour:%Y-%m-%dT%H}/{self.carrier}/{self.flight}"


def mended(row: Any) -> Any:
    """What the dead letters taught: some airports write "11 min" for 11, and carriers in lower
    case."""
    if not isinstance(row, dict):
        return row
    delays = {
        name: row[name].removesuffix(" min")
        for name in ("dep_delay", "arr_delay")
        if isinstance(row.get(name), str)
    }
    return row | delays | {"carrier": str(row.get("carrier")).upper()}


FixedFlight: Any = Annotated[Flight, BeforeValidator(mended)]
