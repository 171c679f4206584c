"""A middleware that writes down every run: one line when it starts, one when it ends, safe from SIGKILL."""

import os

from busline import CallNext, Delivery


async def ledger(delivery: Delivery, call_next: CallNext) -> object:
    _write("start", delivery)
    result = await call_next(delivery)
    _write("end", delivery)
    return result


def _write(what: str, delivery: Delivery) -> None:
    line = f"{what} {os.getpid()} {delivery.handler} {delivery.position or delivery.id}\n"
    descriptor = os.open(os.environ["FLIGHTS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
