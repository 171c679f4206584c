"""One thread, one connection: everything asked for at one moment shares one transaction, under one
lock."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from busline.core.errors import Unavailable, wrong
from busline.transports.sqlite.database import Database, Operation, identity
from busline.transports.sqlite.errors import Busy, Gone, Outdated, translated
from busline.transports.sqlite.opening import Sync

T = TypeVar("T")
BEAT = 2.0


@dataclass(slots=True)
class Request:
    operation: Operation[Any]
    answer: "asyncio.Future[Any]"
    writes: bool


Answer = tuple[Request, Any, BaseException | None]


class File:
    """`write` and `read` run an operation on the thread; a write's are in one transaction, all or
    none.

    Closed or open. The loop asks, the thread answers: `_requests` is all that they share while it
    is open, and None in it is the end. `beat` is called, in the thread, every two seconds."""

    def __init__(self, path: Path, sync: Sync, beat: Callable[[], None]) -> None:
        self.path, self._beat = path, beat
        self._sync: Sync = sync
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Future[None]
        self._database: Database
        self._open = False
        self._beaten = 0.0

    def __repr__(self) -> str:
        return f"<File {self.path}>"

    # --- on the loop -------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens or makes the file. Raises Invalid for one that cannot be used, Busy for one that is
        locked."""
        self._loop = asyncio.get_running_loop()
        self._requests = SimpleQueue()
        self._ended = self._loop.create_future()
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(
            target=self._run, args=(opened,), name=f"busline {self.path.name}", daemon=True
        ).start()
        try:
            await asyncio.shield(opened)
        except asyncio.CancelledError:
            self._requests.put(None)
            raise
        self._open = True

    async def close(self) -> None:
        """What was asked for is done first."""
        if self._open:
            self._open = False
            self._requests.put(None)
        await asyncio.shield(self._ended)

    async def write(self, operation: Operation[T]) -> T:
        """Its result, committed. Raises Unavailable when it was not. Cancelled, it may be done all
        the same."""
        return await self.ask_write(operation)

    async def read(self, operation: Operation[T]) -> T:
        return await self._ask(operation, False)

    def ask_write(self, operation: Operation[T]) -> "asyncio.Future[T]":
        """As `write`, without waiting for it."""
        return self._ask(operation, True)

    def _ask(self, operation: Operation[T], writes: bool) -> "asyncio.Future[T]":
        if not self._open:
            remedy = "Use it inside its `async with`."
            raise Unavailable(wrong(self.path, "an open engine", "one that was closed", remedy))
        answer: asyncio.Future[T] = self._loop.create_future()
        self._requests.put(Request(operation, answer, writes))
        return answer

    def replaced(self) -> bool:
        """Whether there is a file at the path, and it is not the one that is open."""
        there = identity(self.path) is not None
        return there and not (self._open and self._database.is_at(self.path))

    # --- on the thread -----------------------------------------------------------------------

    def _run(self, opened: "asyncio.Future[None]") -> None:
        try:
            self._database = Database(self.path, self._sync)
        except Exception as error:  # whoever opens it hears of it
            self._tell(_fail, opened, error)
            return self._tell(_end, self._ended)
        self._tell(_end, opened)
        while (requests := self._next()) is not None:
            self._turn(requests)
        self._database.close()
        self._tell(_end, self._ended)

    def _tell(self, call: Callable[..., None], *values: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *values)

    def _next(self) -> list[Request] | None:
        """Everything that is asked for by now; None at the end. Waits for the first, beating
        meanwhile."""
        while True:
            self._beat_now_and_then()
            try:
                first = self._requests.get(timeout=BEAT)
            except Empty:
                continue
            return None if first is None else self._together(first)

    def _beat_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._beaten >= BEAT:
            self._beaten = now
            with suppress(OSError):
                self._beat()

    def _together(self, first: Request) -> list[Request]:
        """Whatever was asked for meanwhile, up to the end."""
        found = [first]
        while not self._requests.empty():
            request = self._requests.get()
            if request is None:
                self._requests.put(None)
                break
            found.append(request)
        return found

    def _turn(self, requests: list[Request]) -> None:
        answers = self._write([one for one in requests if one.writes])
        answers += [self._read(one) for one in requests if not one.writes]
        self._tell(_deliver, answers)

    def _write(self, requests: list[Request]) -> list[Answer]:
        if not requests:
            return []
        try:
            results = self._database.write([one.operation for one in requests])
            return [(one, found, None) for one, found in zip(requests, results, strict=True)]
        except Exception as error:  # whoever asked hears of it
            meant = translated(error, self.path)
        if len(requests) == 1 or isinstance(meant, Busy | Gone | Outdated):
            return [(one, None, meant) for one in requests]
        # only the guilty one fails
        return [answer for one in requests for answer in self._write([one])]

    def _read(self, request: Request) -> Answer:
        try:
            return request, self._database.read(request.operation), None
        except Exception as error:  # whoever asked hears of it
            return request, None, translated(error, self.path)


def _end(answer: "asyncio.Future[None]") -> None:
    if not answer.done():
        answer.set_result(None)


def _fail(answer: "asyncio.Future[Any]", error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


def _deliver(answers: list[Answer]) -> None:
    for request, result, error in answers:
        if request.answer.done():
            continue
        if error is None:
            request.answer.set_result(result)
        else:
            request.answer.set_exception(error)
