"""A middleware that writes down every run: a line when it starts, a line when it ends; SIGKILL
cannot lose one."""

import asyncio
import os

from busline import CallNext, Delivery

# that a run takes longer, so that a kill finds some
SECONDS = float(os.environ.get("FLIGHTS_SECONDS", "0"))


async def ledger(delivery: Delivery, call_next: CallNext) -> object:
    """Lines: `start|end|failed PID HANDLER ID ATTEMPT POSITION`, in the file FLIGHTS_LEDGER."""
    about = f"{os.getpid()} {delivery.handler} {delivery.id} {delivery.attempt} {delivery.position}"
    _write(f"start {about}\n")
    ended = "failed"
    try:
        await asyncio.sleep(SECONDS)
        result = await call_next(delivery)
        ended = "end"
        return result
    finally:
        _write(f"{ended} {about}\n")


def _write(line: str) -> None:
    descriptor = os.open(
        os.environ["FLIGHTS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
    )
    try:
        # one write to the kernel: it stays when the process is killed
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
