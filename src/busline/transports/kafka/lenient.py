"""A batch of records whose headers' names are no UTF-8: other clients write any bytes there, and
the client's own parser refuses them. It is asked for once more and read here: only such batches
come this way."""

import asyncio
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.util import decode_varint

LENGTH = slice(8, 12)  # of a batch's bytes: how many follow
ANSWER = 4.0  # seconds a leader has to answer


async def fetch(client: Any, place: TopicPartition, offset: int) -> "Batch":
    """The batch in which this offset stands. Raises KafkaError and TimeoutError: ask again."""
    node = client.cluster.leader_for_partition(place)
    if node in (None, -1):
        raise kafka.LeaderNotAvailableError(place)
    request = FetchRequest(0, 1, 1, 0, [(place.topic, [(place.partition, offset, 1)])], rack_id="")
    async with asyncio.timeout(ANSWER):
        answer = await client.send(node, request)
    _, ((_, code, *rest),) = answer.topics[0]
    if code:
        raise kafka.for_code(code)(place)
    data = rest[-1]
    return Batch(data[: LENGTH.stop + int.from_bytes(data[LENGTH], "big")])


class Batch(_DefaultRecordBatchPy):  # type: ignore[misc]  # its library calls it final; nobody else parses a whole batch
    """As the client's, but a name that is no UTF-8 is written out: `\\xff`."""

    _pos: int

    def _read_msg(self, decode_varint: Any = decode_varint) -> Any:
        data, position = self._buffer, self._pos
        length, position = decode_varint(data, position)
        end = position + length
        _, position = decode_varint(data, position)  # attributes: none are defined
        passed, position = decode_varint(data, position)
        delta, position = decode_varint(data, position)
        key, position = _bytes(data, position)
        value, position = _bytes(data, position)
        count, position = decode_varint(data, position)
        headers: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            name, position = _bytes(data, position)
            header, position = _bytes(data, position)
            headers.append(((name or b"").decode("utf-8", "backslashreplace"), header))
        if position != end:
            raise kafka.CorruptRecordException(f"a record of {length} bytes ends elsewhere")
        self._pos = position
        at = (
            self.max_timestamp
            if self.timestamp_type == self.LOG_APPEND_TIME
            else self.first_timestamp + passed
        )
        return _DefaultRecordPy(
            self.base_offset + delta, at, self.timestamp_type, key, value, headers
        )


def _bytes(data: bytearray, position: int) -> tuple[bytes | None, int]:
    """What stands there, and where it ends."""
    length, position = decode_varint(data, position)
    if length < 0:
        return None, position
    return bytes(data[position : position + length]), position + length
