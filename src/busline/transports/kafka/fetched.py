"""What the client has fetched, taken whole and unparsed: so the next fetch travels while this is
worked on.

These are the client's own buffers, not its public face: a test names every part that is used.
"""

from collections import deque
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.consumer.fetcher import FetchError

SHARE, LARGEST = 64 << 10, 1 << 20  # bytes fetched of one partition: at least, at most


class Batches:
    """Batches of records in the form that the client's parser reads. `end`: the offset behind the
    last record. `size`: bytes, as they came."""

    __slots__ = ("_broken", "_left", "end", "size")

    def __init__(self, batches: Any, begin: int) -> None:
        self._left = deque[Any]()
        self.size = int(batches.size_in_bytes())
        self._broken: Exception | None = None  # why there is no other batch behind these
        try:
            while batches.has_next():
                self._left.append(batches.next_batch())
        # whatever the parser raises: it is told where that batch's turn comes
        except Exception as error:
            self._broken = error
        self.end = int(self._left[-1].next_offset) if self._left else begin

    def has_next(self) -> bool:
        return bool(self._left) or self._broken is not None

    def next_batch(self) -> Any:
        if not self._left and self._broken is not None:
            raise self._broken
        return self._left.popleft()

    def put_back(self, batch: Any) -> None:
        self._left.appendleft(batch)


class Fetched:
    """The client's buffers, by partition."""

    def __init__(self, consumer: Any) -> None:
        self._fetcher = consumer._fetcher

    def places(self) -> list[TopicPartition]:
        """The partitions for which something arrived."""
        return list(self._fetcher._records)

    def take(self, place: TopicPartition) -> Any:
        """An iterator over its records, None for what is outdated, or the error that came instead.
        Any exception may come out of the iterator: what the parser finds is anybody's bytes."""
        result = self._fetcher._records.pop(place)
        self._fetcher._notify(self._fetcher._wait_consume_future)
        if type(result) is FetchError:
            return (
                None
                if isinstance(result._error, kafka.NoOffsetForPartitionError)
                else result._error
            )
        if not result.check_assignment(place):
            return None
        records = result._partition_records
        records._records = batches = Batches(records._records, records.next_fetch_offset)
        records._consumer_record = _as_it_is
        result._assignment.state_value(place).consumed_to(batches.end)
        return records

    @staticmethod
    def size(records: Any) -> int:
        """How many bytes an iterator came as."""
        return 0 if records is None else int(records._records.size)

    def bound(self, partitions: int, size: int) -> None:
        """So much of all these partitions together is fetched ahead, but for a record that is
        larger than its share."""
        self._fetcher._max_partition_fetch_bytes = min(
            max(size // max(partitions, 1), SHARE), LARGEST
        )

    def waiter(self) -> Any:
        """A future that is done when something arrives. Cancel it when it is no longer waited
        for."""
        return self._fetcher._create_fetch_waiter()

    @property
    def ended(self) -> bool:
        """Whether the client has given up fetching."""
        return bool(self._fetcher._fetch_task.done())


def end_of(records: Any) -> int:
    """The offset behind the last record of an iterator."""
    return int(records._records.end)


def go_on_with(records: Any, batch: Any) -> None:
    """An iterator that raised goes on with this batch, in place of the one that it could not
    read."""
    records._records.put_back(batch)
    records._records_iterator = records._unpack_records()


def _as_it_is(_: TopicPartition, record: Any) -> Any:
    """In place of the client's copy of each record."""
    return record
