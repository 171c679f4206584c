"""Writing records: those of one partition in the order in which they were given, each once, each
call confirmed as a whole.

A broker knows a batch by its producer's id and epoch and by the number of its first record, and
takes only the number that follows the last one it has. What holds:

- One batch of a partition is under way at a time, and it keeps its numbers until the broker has
said what became of it.
  It is repeated under them for as long as that takes; a repetition is no second record. - Nothing
  is numbered while its partition has no leader: it waits here, and is dropped when nobody waits for
  it. - What was refused was not written, but its numbers are gone. All partitions then count from
  0, in the next epoch, or
  under a new id where the broker does not know ours any more. Batches that are under way keep their
  numbers. - Records are numbered anew only where it is certain that they are not in the log: they
  were refused for their numbers,
  or were never given to the client. Those whose outcome nobody knows are not sent again; their
  callers hear Unavailable."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.producer.transaction_manager import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PidAndEpoch

from busline.core.errors import Invalid, Unavailable, wrong
from busline.transports.kafka import client as library
from busline.transports.kafka.diagnosis import explain, translated
from busline.transports.kafka.turn import Turn
from busline.transports.kafka.wire import Record

log = logging.getLogger("busline")
CLOSING = 2.0
PAUSE = 0.1  # seconds between tries
ANSWER = 5.0  # seconds the cluster has to say who leads
BATCH = 128 * 1024  # bytes; a topic's limit counts for the batch, 1 MiB unless it says otherwise
LAST_EPOCH = 2**15 - 1
MISNUMBERED = (
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.ProducerFenced,
    kafka.InvalidProducerIdMapping,
)
# for a record of the batch
UNFIT = kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError, library.InvalidRecordError


class Parcel:
    """The records that one call gives to one partition, and who waits for them."""

    __slots__ = ("_left", "compress", "done", "next", "records", "unfit")

    def __init__(
        self, records: Sequence[Record], compress: bool, done: "asyncio.Future[None]"
    ) -> None:
        self.records, self.compress, self.done = records, compress, done
        self.next = 0  # the first that is in no batch yet
        self.unfit: list[BaseException] = []  # why some can never be written
        self._left = len(records)

    def put(self, batch: library.Batch, alone: bool) -> bool:
        """Whether the batch has room for more. Those nobody waits for need none."""
        if self.done.done():
            return True
        before, end = batch.record_count(), self.next + 1 if alone else len(self.records)
        try:
            room = batch.fill(self.records[self.next : end])
        finally:
            self.next += batch.record_count() - before
        return room and not alone

    @property
    def given(self) -> bool:
        """Whether nothing of it has to go into a batch."""
        return self.next == len(self.records) or self.done.done()

    def arrived(self, count: int) -> None:
        """So many were written, or never will be."""
        self._left -= count
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def failed(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


Span = tuple[Parcel, int, int]  # what a batch has of a parcel


class Appender:
    """One partition's queue. The client itself lets late callers overtake those who wait for a full
    batch."""

    def __init__(self, living: Callable[[], Awaitable[Any]], topic: str, part: int) -> None:
        self._living, self._place = living, TopicPartition(topic, part)
        self._waiting: deque[Parcel] = deque()
        self._alone = 0  # so many of the next records go in batches of their own
        self._task: asyncio.Task[None] | None = None

    def append(self, records: Sequence[Record], compress: bool) -> Parcel:
        """Done when all of them are confirmed. Its waiting cancelled, those that are not under way
        are not sent."""
        loop = asyncio.get_running_loop()
        parcel = Parcel(records, compress, loop.create_future())
        self._waiting.append(parcel)
        if self._task is None:
            self._task = loop.create_task(
                self._run(),
                name=f"busline kafka append {self._place.topic}/{self._place.partition}",
            )
        return parcel

    async def _run(self) -> None:
        await asyncio.sleep(0)  # whoever else appends in this turn comes along
        while self._wanted():
            try:
                client = await self._living()
                if await led(client, self._place) and self._wanted():
                    await self._next(client)
            except Exception as error:  # whatever it is, the queue goes on
                self._give_up(translated(self._place.topic, error))
        self._task = None

    async def _next(self, client: Any) -> None:
        compress = self._waiting[0].compress
        batch = library.Batch(BATCH, compress)
        spans = self._fill(batch, compress)
        if spans:
            await self._send(client, batch, spans)

    def _wanted(self) -> bool:
        """Whether anybody still waits."""
        while self._waiting and self._waiting[0].done.done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _fill(self, batch: library.Batch, compress: bool) -> list[Span]:
        """Puts into a batch what it takes of those who wait."""
        spans, room, alone = list[Span](), True, self._alone > 0
        while room and self._wanted() and self._waiting[0].compress == compress:
            parcel = self._waiting[0]
            start = parcel.next
            try:
                room = parcel.put(batch, alone)
            # what the client cannot write is its caller's to hear of; the queue goes on
            except Exception as error:
                parcel.failed(error)
            if parcel.next > start:
                spans.append((parcel, start, parcel.next))
            if parcel.given:
                self._waiting.popleft()
        self._alone = max(0, self._alone - 1)
        return spans

    async def _send(self, client: Any, batch: library.Batch, spans: Sequence[Span]) -> None:
        try:
            batch.close()
            outcome = await client.send_batch(
                batch, self._place.topic, partition=self._place.partition
            )
        except asyncio.CancelledError:
            self._failed(spans, closed(self._place.topic))
            raise
        except Exception as error:  # whatever it is, the client has not taken the batch
            log.debug("%s/%d: sent again: %r", *self._place, error)
            return await self._again(spans)
        try:
            await outcome
        except asyncio.CancelledError:
            self._failed(spans, closed(self._place.topic))
            raise
        except Exception as error:  # whatever it is, the queue goes on
            await self._refused(client, spans, error)
        else:
            for parcel, start, end in spans:
                parcel.arrived(end - start)

    async def _refused(self, client: Any, spans: Sequence[Span], error: Exception) -> None:
        renumber(client, anew=isinstance(error, MISNUMBERED))
        if isinstance(error, MISNUMBERED):
            log.warning(
                "%s/%d: the broker has lost count of our records (%s): they are sent again, under"
                " a new id",
                *self._place,
                type(error).__name__,
            )
            await self._again(spans)
        elif not isinstance(error, UNFIT):
            self._failed(spans, translated(self._place.topic, error))
        elif (count := sum(end - start for _, start, end in spans)) > 1:
            self._back(spans)
            self._alone = count
        else:
            spans[0][0].unfit.append(error)
            spans[0][0].arrived(1)

    async def _again(self, spans: Sequence[Span]) -> None:
        self._back(spans)
        await asyncio.sleep(PAUSE)

    def _back(self, spans: Sequence[Span]) -> None:
        """They wait again, before all others."""
        for parcel, start, _ in reversed(spans):
            parcel.next = start
            if not self._waiting or self._waiting[0] is not parcel:
                self._waiting.appendleft(parcel)

    @staticmethod
    def _failed(spans: Sequence[Span], error: BaseException) -> None:
        for parcel, _, _ in spans:
            parcel.failed(error)

    def _give_up(self, error: BaseException) -> None:
        for parcel in self._waiting:
            parcel.failed(error)

    async def stop(self) -> None:
        """Whoever still waits hears that the outcome is unknown."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._give_up(closed(self._place.topic))


async def led(client: Any, place: TopicPartition) -> bool:
    """Whether the client knows who leads a partition. Where nobody does, it comes back a moment
    later."""
    metadata = client._metadata
    if metadata.leader_for_partition(place) not in (None, -1):
        return True
    client.client.add_topic(place.topic)
    await asyncio.wait((client.client.force_metadata_update(),), timeout=ANSWER)
    if place.topic in metadata.unauthorized_topics:
        raise translated(place.topic, kafka.TopicAuthorizationFailedError())
    found = metadata.leader_for_partition(place) not in (None, -1)
    if not found:
        await asyncio.sleep(PAUSE)
    return found


def renumber(client: Any, *, anew: bool) -> None:
    """Lets every partition count from 0, in the next epoch, or if `anew`, under another id, which
    the client asks for."""
    manager = client._txn_manager
    if not anew and NO_PRODUCER_EPOCH < manager.producer_epoch < LAST_EPOCH:
        manager._pid_and_epoch = PidAndEpoch(manager.producer_id, manager.producer_epoch + 1)
    else:
        manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
        manager._pid_waiter = asyncio.get_running_loop().create_future()  # it was told the last one
    manager._sequence_numbers.clear()


def closed(topic: str) -> Unavailable:
    return Unavailable(
        wrong(
            topic,
            "a confirmation",
            "the end of the transport before",
            "What was sent may still be written.",
        )
    )


class Producer:
    """Opened at the first write."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = servers
        self._client: Any = None
        self._appenders: dict[tuple[str, int], Appender] = {}
        self._opening = Turn()
        self._closed = False

    async def open(self) -> None:
        """Raises what keeps the cluster from answering."""
        await self._opening.take(self._opened)  # always: callers keep their order

    def leads(self, topic: str, part: int) -> bool | None:
        """Whether a partition has a leader; None where it is not known."""
        leader = self._client._metadata.leader_for_partition(TopicPartition(topic, part))
        return None if leader is None else bool(leader >= 0)

    async def write(
        self,
        topic: str,
        parts: Mapping[int, Sequence[Record]],
        *,
        compress: bool = False,
        confirmed: set[int] | None = None,
    ) -> None:
        """Returns when all are confirmed, however long that takes. Cancelled, what is not under way
        is not sent; the rest may be written, now or later. Raises Invalid for records that the
        topic does not take; the others are written. `confirmed` takes the partitions whose records
        are, however it ends."""
        parcels = [
            self._appender(topic, part).append(records, compress) for part, records in parts.items()
        ]
        try:
            await asyncio.gather(*(one.done for one in parcels))
        finally:
            for part, one in zip(parts, parcels, strict=True):
                one.done.cancel()
                if (
                    confirmed is not None
                    and not one.done.cancelled()
                    and one.done.exception() is None
                ):
                    confirmed.add(part)
        unfit = [error for one in parcels for error in one.unfit]
        if unfit:
            raise refusal(topic, unfit[0], len(unfit), sum(len(one.records) for one in parcels))

    def _appender(self, topic: str, part: int) -> Appender:
        found = self._appenders.get((topic, part))
        if found is None:
            found = self._appenders[topic, part] = Appender(self._living, topic, part)
        return found

    async def _living(self) -> Any:
        client = self._client
        if client is None or client._sender.sender_task.done():
            client = await self._opening.take(self._opened)
        return client

    async def _opened(self) -> Any:
        if self._closed:
            raise closed("kafka")
        # it met what it does not expect
        if self._client is not None and self._client._sender.sender_task.done():
            dead, self._client = self._client, None
            await _stop(dead)
        if self._client is None:
            self._client = await self._open()
        return self._client

    async def _open(self) -> Any:
        client = library.producer(
            self._servers, enable_idempotence=True, acks="all", linger_ms=0, max_batch_size=BATCH,
            request_timeout_ms=15_000, metadata_max_age_ms=30_000,
        )  # fmt: skip
        # one that expired would take its numbers along
        client._message_accumulator._batch_ttl = float("inf")
        try:
            await client.start()
        except BaseException as error:  # cancelled or refused, nothing of it stays open
            await client.stop()
            if isinstance(error, kafka.KafkaError):
                raise await explain(self._servers) from error
            raise
        return client

    async def close(self) -> None:
        """Gives what is under way a moment, then leaves it: the client itself would wait for
        ever."""
        self._closed = True
        if self._client is not None:
            await _stop(self._client)
        for one in self._appenders.values():
            await one.stop()


def refusal(topic: str, error: BaseException, count: int, of: int) -> Invalid:
    """What a caller hears of records that can never be written."""
    text = translated(topic, error)
    if of == 1:
        return Invalid(str(text))
    remedy = f"The other {of - count} are written: do not send them again."
    return Invalid(
        wrong(
            topic,
            "records that the topic takes",
            f"{count} of {of} that it does not ({text})",
            remedy,
        )
    )


async def _stop(client: Any) -> None:
    try:
        async with asyncio.timeout(CLOSING):
            await client.stop()
    except TimeoutError:
        client._sender.sender_task.cancel()  # what it has under way ends with the loop
        await client.client.close()
