"""A model of a name that another module has too."""

from pydantic import BaseModel


class Order(BaseModel):
    number: int
