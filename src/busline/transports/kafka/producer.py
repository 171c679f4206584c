"""Writing records: those of one partition in the order in which they were given, each call confirmed as a whole."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka

from busline.core.errors import Unavailable, wrong
from busline.transports.kafka import client as library
from busline.transports.kafka.diagnosis import explain, translated
from busline.transports.kafka.turn import Turn
from busline.transports.kafka.wire import Record

log = logging.getLogger("busline")
PATIENCE = 10.0  # seconds until a publish is answered with "unknown"
CLOSING = 2.0
BATCH = 128 * 1024  # bytes; a topic's limit counts for the batch, 1 MiB unless it says otherwise


class Parcel:
    """The records that one call gives to one partition, and who waits for them."""

    __slots__ = ("_left", "done", "next", "records")

    def __init__(self, records: Sequence[Record], done: "asyncio.Future[None]") -> None:
        self.records, self.done = records, done
        self.next = 0  # the first that is in no batch yet
        self._left = len(records)

    def put(self, batch: Any) -> bool:
        """Whether all of them found room, in this batch or before. Those nobody waits for need none."""
        if not self.done.done():
            append = batch.append
            for at, key, body, headers in self.records[self.next :] if self.next else self.records:
                if append(timestamp=at, key=key, value=body, headers=list(headers)) is None:
                    return False
                self.next += 1
        return True

    def arrived(self, count: int) -> None:
        self._left -= count
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def failed(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


Span = tuple[Parcel, int, int]  # what a batch has of a parcel


class Appender:
    """One partition's queue. The client itself lets late callers overtake those who wait for a full batch."""

    def __init__(self, client: Any, topic: str, part: int) -> None:
        self._client, self._topic, self._part = client, topic, part
        self._waiting: deque[Parcel] = deque()
        self._task: asyncio.Task[None] | None = None

    def append(self, records: Sequence[Record]) -> "asyncio.Future[None]":
        """Done when all of them are confirmed. Cancelled, those that are not under way are not sent."""
        loop = asyncio.get_running_loop()
        parcel = Parcel(records, loop.create_future())
        self._waiting.append(parcel)
        if self._task is None:
            self._task = loop.create_task(self._run(), name=f"busline kafka append {self._topic}/{self._part}")
        return parcel.done

    async def _run(self) -> None:
        await asyncio.sleep(0)  # whoever else appends in this turn comes along
        while self._waiting:
            batch = self._client.create_batch()
            spans = self._fill(batch)
            if spans:
                await self._send(batch, spans)
        self._task = None

    def _fill(self, batch: Any) -> list[Span]:
        """Puts into a batch what it takes of those who wait."""
        spans, room = list[Span](), True
        while self._waiting and room:
            parcel = self._waiting[0]
            start = parcel.next
            try:
                room = parcel.put(batch)
            except Exception as error:  # what the client cannot write is its caller's to hear of; the queue goes on
                parcel.failed(error)
            if parcel.next > start:
                spans.append((parcel, start, parcel.next))
            if room:
                self._waiting.popleft()
        return spans

    async def _send(self, batch: Any, spans: Sequence[Span]) -> None:
        try:
            batch.close()
            await self._know()
            await (await self._client.send_batch(batch, self._topic, partition=self._part))
        except kafka.MessageSizeTooLargeError as error:
            await self._too_large(spans, translated(self._topic, error))
        except asyncio.CancelledError:
            for parcel, _, _ in spans:
                parcel.failed(closed(self._topic))
            raise
        except Exception as error:  # whatever it is, the queue goes on
            for parcel, _, _ in spans:
                parcel.failed(translated(self._topic, error))
        else:
            for parcel, start, end in spans:
                parcel.arrived(end - start)

    async def _know(self) -> None:
        """A partition that is newer than what the client knows of its topic would be refused."""
        parts = self._client._metadata.partitions_for_topic(self._topic)
        if parts is not None and self._part not in parts:
            await self._client.client.force_metadata_update()

    async def _too_large(self, spans: Sequence[Span], error: BaseException) -> None:
        """The topic's limit counts for a whole batch: each record is tried alone."""
        self._rewind(sum(end - start for _, start, end in spans))
        if len(spans) == 1 and spans[0][2] - spans[0][1] == 1:
            return spans[0][0].failed(error)
        for parcel, start, end in spans:
            for n in range(start, end):
                batch = self._client.create_batch()
                at, key, body, headers = parcel.records[n]
                batch.append(timestamp=at, key=key, value=body, headers=list(headers))
                await self._send(batch, [(parcel, n, n + 1)])

    def _rewind(self, count: int) -> None:
        """What was refused took no numbers in the broker's count; the client believes that it did, and its next batch
        would be out of sequence. Nothing else of this partition is under way."""
        self._client._txn_manager._sequence_numbers[TopicPartition(self._topic, self._part)] -= count

    async def stop(self) -> None:
        """Whoever still waits hears that the outcome is unknown."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        for parcel in self._waiting:
            parcel.failed(closed(self._topic))


def closed(topic: str) -> Unavailable:
    return Unavailable(wrong(topic, "a confirmation", "the end of the transport before", "What was sent may still be written."))


class Producer:
    """Opened at the first write."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = servers
        self._client: Any = None
        self._appenders: dict[tuple[str, int], Appender] = {}
        self._opening = Turn()

    async def write(self, topic: str, parts: Mapping[int, Sequence[Record]]) -> None:
        """Returns when all are confirmed. Raises Unavailable: some may be written, now or later."""
        client = await self._opening.take(self._opened)
        waiting = [self._appender(client, topic, part).append(records) for part, records in parts.items()]
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*waiting)
        except TimeoutError:
            remedy = "What was sent may still be written: repeat it, safely with `id=` where a repeat would hurt."
            raise Unavailable(wrong(topic, f"a confirmation within {PATIENCE:g} s", "none", remedy)) from None
        finally:
            for one in waiting:
                one.cancel()

    def _appender(self, client: Any, topic: str, part: int) -> Appender:
        found = self._appenders.get((topic, part))
        if found is None:
            found = self._appenders[topic, part] = Appender(client, topic, part)
        return found

    async def _opened(self) -> Any:
        if self._client is not None and self._client._sender.sender_task.done():  # fenced, or out of sequence
            await self.close()
        if self._client is None:
            self._client = await self._open()
        return self._client

    async def _open(self) -> Any:
        client = library.producer(
            self._servers, enable_idempotence=True, acks="all", linger_ms=0, max_batch_size=BATCH,
            max_request_size=1 << 20, request_timeout_ms=15_000, metadata_max_age_ms=30_000,
        )  # fmt: skip
        try:
            await client.start()
        except BaseException as error:  # cancelled or refused, nothing of it stays open
            await client.stop()
            if isinstance(error, kafka.KafkaError):
                raise await explain(self._servers) from error
            raise
        return client

    async def close(self) -> None:
        """Gives what is under way a moment, then leaves it: the client itself would wait for ever."""
        client, self._client = self._client, None
        appenders, self._appenders = list(self._appenders.values()), {}
        if client is not None:
            await _stop(client)
        for one in appenders:
            await one.stop()


async def _stop(client: Any) -> None:
    try:
        async with asyncio.timeout(CLOSING):
            await client.stop()
    except TimeoutError:
        client._sender.sender_task.cancel()  # what it has under way ends with the loop
        await client.client.close()
