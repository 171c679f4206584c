"""How a worker that has nothing to do hears of something.

Resting, or waiting since `wait`, until there is news; then it rests again. Only its receiver calls.
Between two awaits the worker may have got another name, or learnt that what waits must be taken
alone: the next question goes by what it is told then."""

import asyncio
from collections.abc import Callable, Sequence

from busline.core.errors import BuslineError
from busline.transports.redis.session import Session

WAIT = 2  # seconds for which one question waits for a token, real ones
AGAIN = 0.2  # before it asks again, while the server is away


class Listener:
    """`on_news` is told whether a token was taken: then somebody must look, for nobody else was
    woken."""

    def __init__(
        self, session: Session, queues: Sequence[str], on_news: Callable[[bool], None]
    ) -> None:
        self._prefix, self._queues, self._on_news = session.prefix, tuple(queues), on_news
        self._link = session.new_link()
        self._waits = asyncio.Event()
        self._worker = ""
        self._withheld = False

    def wait(self, worker: str, withheld: bool) -> None:
        """From now on. `withheld`: what waits must be taken alone, and something else is in
        hand."""
        self._worker, self._withheld = worker, withheld
        self._waits.set()

    async def run(self) -> None:
        while True:
            await self._waits.wait()
            self._waits.clear()
            taken: bool | None = None
            try:
                while taken is None:
                    taken = await self._news()
            except BuslineError:  # the receiver hears the same, and says so
                await asyncio.sleep(AGAIN)
            self._on_news(bool(taken))

    async def _news(self) -> bool | None:
        """Whether a token was taken; None where nothing may be there. Tokens get lost with those
        who took them, so without one it is looked."""
        if self._withheld:  # a token would only say again what must not be taken
            await asyncio.sleep(WAIT)
            return False
        own = f"{self._prefix}wake:{self._worker}"
        if await self._link.ask("BLPOP", own, *self._keys("wake"), WAIT) is not None:
            return True
        kinds = "queue", "suspect", "delayed", "retrying", "unknown"
        return False if await self._link.ask("EXISTS", *self._keys(*kinds)) else None

    def _keys(self, *kinds: str) -> list[str]:
        return [f"{self._prefix}{kind}:{queue}" for kind in kinds for queue in self._queues]

    async def close(self) -> None:
        await self._link.close()
