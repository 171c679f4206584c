"""What the client has fetched, taken whole and unparsed: so the next fetch travels while this is worked on.

These are the client's own buffers, not its public face: a test names every part that is used.
"""

from collections import deque
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchError


class Batches:
    """Batches of records in the form that the client's parser reads."""

    __slots__ = ("_left",)

    def __init__(self, batches: Any) -> None:
        self._left = deque[Any]()
        while batches.has_next():
            self._left.append(batches.next_batch())

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        return int(self._left[-1].next_offset)

    def has_next(self) -> bool:
        return bool(self._left)

    def next_batch(self) -> Any:
        return self._left.popleft()


class Fetched:
    """The client's buffers, by partition."""

    def __init__(self, consumer: Any) -> None:
        self._fetcher = consumer._fetcher

    def places(self) -> list[TopicPartition]:
        """The partitions for which something arrived."""
        return list(self._fetcher._records)

    def take(self, place: TopicPartition) -> Any:
        """An iterator over its records, None for what is outdated, or the error that came instead."""
        result = self._fetcher._records.pop(place)
        self._fetcher._notify(self._fetcher._wait_consume_future)
        if type(result) is FetchError:
            return result._error
        if not result.check_assignment(place):
            return None
        records = result._partition_records
        records._records = batches = Batches(records._records)
        records._consumer_record = _as_it_is
        result._assignment.state_value(place).consumed_to(batches.end)
        return records

    def waiter(self) -> Any:
        """A future that is done when something arrives. Cancel it when it is no longer waited for."""
        return self._fetcher._create_fetch_waiter()

    @property
    def ended(self) -> bool:
        """Whether the client has given up fetching."""
        return bool(self._fetcher._fetch_task.done())


def _as_it_is(_: TopicPartition, record: Any) -> Any:
    """In place of the client's copy of each record."""
    return record
