"""What finished beyond a group's position, as text beside it: a commit carries it, and whoever gets
the partition reads it.

`b1:` and base64 of deflated numbers: the position; then for each range how far it begins behind the
one before, and how long it is. Each number is in groups of seven bits, the lowest first. Whoever
does not know it passes over it."""

import zlib
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

MARK = "b1:"
Range = tuple[int, int]  # from the first, up to the second


def between(low: int, unfinished: Iterable[int], upto: int) -> list[Range]:
    """What is finished behind `low`: all but these, in their order. What was never a record counts
    as finished."""
    found, at = list[Range](), low
    for offset in unfinished:
        if offset > at:
            found.append((at, offset))
        at = offset + 1
    return [*found, (at, upto)] if upto > at else found


def clipped(ranges: Iterable[Range], low: int, end: int) -> list[Range]:
    """What of them lies from `low` up to `end`."""
    return [
        (max(begin, low), min(upto, end)) for begin, upto in ranges if upto > low and begin < end
    ]


def within(offset: int, ranges: Sequence[Range]) -> bool:
    at = bisect_right(ranges, (offset, offset)) - 1
    return any(begin <= offset < upto for begin, upto in ranges[max(at, 0) : at + 2])


def written(low: int, ranges: Sequence[Range], limit: int) -> tuple[str, bool]:
    """The text, `limit` bytes at most, and whether all of them are in it."""
    kept = len(ranges)
    while kept:
        text = (
            MARK
            + b64encode(zlib.compress(b"".join(map(_number, _steps(low, ranges[:kept]))))).decode()
        )
        if len(text) <= limit:
            return text, kept == len(ranges)
        kept = min(kept - 1, kept * limit // len(text))
    return "", not ranges


def read(low: int, text: str) -> list[Range]:
    """What is said to be finished behind this position; nothing where it was written for another,
    or by somebody else."""
    if not text.startswith(MARK):
        return []
    try:
        first, *steps = _numbers(zlib.decompress(b64decode(text.removeprefix(MARK), validate=True)))
    except (ValueError, zlib.error):
        return []
    if first != low or len(steps) % 2 or 0 in steps[1::2]:
        return []
    found, at = list[Range](), low
    for gap, length in zip(steps[::2], steps[1::2], strict=True):
        found.append((at + gap, at + gap + length))
        at += gap + length
    return found


def _steps(low: int, ranges: Iterable[Range]) -> Iterator[int]:
    yield low
    at = low
    for begin, upto in ranges:
        yield begin - at
        yield upto - begin
        at = upto


def _number(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _numbers(data: bytes) -> list[int]:
    found, value, shift = list[int](), 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value, shift = 0, 0
    if shift or not found:
        raise ValueError("it ends within a number")
    return found
