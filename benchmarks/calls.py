"""Python calls in busline's own files for one message, from receive to settle."""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import busline
from benchmarks.memory import until
from benchmarks.shop import orders, seen, stream_app, values

OWN = str(Path(busline.__file__).parent)


async def calls(count: int) -> Counter[str]:
    """How often each function was called or resumed while `count` messages, published before, were
    handled."""
    seen.ids.clear()
    counted: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OWN):
            counted[f"{frame.f_code.co_qualname} ({Path(frame.f_code.co_filename).name})"] += 1

    app = stream_app()
    async with app.running():
        # the memory engine never suspends: nothing was received yet
        await app.publish_many(orders, values(count))
        assert not seen.ids
        sys.setprofile(profile)
        await until(lambda: len(seen.ids) == count)
        sys.setprofile(None)
    return counted
