"""Which partition a key belongs to: as Kafka's Java client places it."""

from functools import lru_cache
from struct import unpack_from

MASK = 0xFFFFFFFF
MULTIPLY = 0x5BD1E995


def partition(key: bytes, count: int) -> int:
    """The partition, from 0, of a key among `count`."""
    return (murmur2(key) & 0x7FFFFFFF) % count


@lru_cache(maxsize=16_384)
def murmur2(data: bytes) -> int:
    """MurmurHash 2, 32 bits, with Kafka's seed."""
    h, words = 0x9747B28C ^ len(data), len(data) // 4
    for k in unpack_from(f"<{words}I", data):
        k = k * MULTIPLY & MASK
        h = (h * MULTIPLY ^ (k ^ k >> 24) * MULTIPLY) & MASK
    if rest := data[words * 4 :]:
        h = (h ^ int.from_bytes(rest, "little")) * MULTIPLY & MASK
    h = (h ^ (h >> 13)) * MULTIPLY & MASK
    return h ^ (h >> 15)
