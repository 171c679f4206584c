"""Which partition a key belongs to: as Kafka's Java client places it."""

from functools import lru_cache

MASK = 0xFFFFFFFF
MULTIPLY = 0x5BD1E995


def partition(key: bytes, count: int) -> int:
    """The partition, from 0, of a key among `count`."""
    return (murmur2(key) & 0x7FFFFFFF) % count


@lru_cache(maxsize=4096)
def murmur2(data: bytes) -> int:
    """MurmurHash 2, 32 bits, with Kafka's seed."""
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * MULTIPLY & MASK
        h = (h * MULTIPLY & MASK) ^ ((k ^ (k >> 24)) * MULTIPLY & MASK)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * MULTIPLY & MASK
    h = (h ^ (h >> 13)) * MULTIPLY & MASK
    return h ^ (h >> 15)
