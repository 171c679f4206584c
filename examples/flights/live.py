"""What is seen while the demo runs: on a terminal one block, drawn again and again; elsewhere a
line every second."""

import asyncio
import shutil
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from examples.flights.child import inspect

LOOK = 0.2  # seconds between two looks on a terminal
SAY = 1.0  # elsewhere
BAR = 30


@dataclass(frozen=True, slots=True)
class Figures:
    """What `busline inspect` knows of the example."""

    recorded: int = 0
    explained: int = 0
    retried: int = 0
    dead: int = 0
    behind: int = 0

    @classmethod
    def of(cls, seen: Any) -> "Figures":
        record, explain = seen["handlers"].get("record", {}), seen["handlers"].get("explain", {})
        retried = record.get("retried", 0) + explain.get("retried", 0)
        dead, behind = sum(seen["dead"].values()), sum(group["behind"] for group in seen["groups"])
        return cls(record.get("handled", 0), explain.get("handled", 0), retried, dead, behind)


class Live:
    """A view of one run. `published` is told by the producer; the rest is asked of the engine, by
    another process."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.published = 0
        self.figures = Figures()
        self._begun = time.monotonic()
        self._looked = (self._begun, 0, 0)
        self._rates = (0.0, 0.0)
        self._drawn = 0
        self._terminal = sys.stdout.isatty()

    def told(self, published: int) -> None:
        self.published += published

    async def watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Shows what happens until the work is done, and then once more. Raises what the work
        raises."""
        self._looked = (time.monotonic(), self.published, self.figures.recorded)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            while not task.done():
                begun = time.monotonic()
                await asyncio.wait([task], timeout=LOOK)
                await self._look()
                if not self._terminal:
                    await asyncio.wait([task], timeout=max(0.0, SAY - (time.monotonic() - begun)))
        await self._look()
        self._drawn = 0

    @property
    def behind(self) -> int:
        """How many published records no worker has finished."""
        return self.figures.behind

    async def _look(self) -> None:
        if (seen := await inspect()) is not None:
            self.figures = Figures.of(seen)
        now, before = time.monotonic(), self._looked
        self._looked = (now, self.published, self.figures.recorded)
        passed = now - before[0]
        self._rates = (
            (self.published - before[1]) / passed,
            (self.figures.recorded - before[2]) / passed,
        )
        self._show()

    def _show(self) -> None:
        if not self._terminal:
            print(f"   {self._text()}", flush=True)
            return
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        block = self._block()
        width = shutil.get_terminal_size().columns - 1
        print(up + "\n".join(f"\x1b[2K{line[:width]}" for line in block), flush=True)
        self._drawn = len(block)

    def _text(self) -> str:
        seen, (publishing, recording) = self.figures, self._rates
        return (
            f"{time.monotonic() - self._begun:5.1f} s  published {self.published}"
            f" ({publishing:.0f}/s)  recorded {seen.recorded} ({recording:.0f}/s)  behind"
            f" {seen.behind}  explained {seen.explained}  retried {seen.retried}  dead letters"
            f" {seen.dead}"
        )

    def _block(self) -> list[str]:
        seen, (publishing, recording) = self.figures, self._rates
        return [
            f"   published  {self._bar(self.published)}  {publishing:>6.0f}/s",
            f"   recorded   {self._bar(seen.recorded)}  {recording:>6.0f}/s",
            (
                f"   behind {seen.behind}  explained {seen.explained}  retried {seen.retried}  dead"
                f" letters {seen.dead}"
            ),
        ]

    def _bar(self, done: int) -> str:
        filled = BAR * done // max(self.total, 1)
        return f"{'#' * filled}{'.' * (BAR - filled)}  {done:>6} of {self.total}"
