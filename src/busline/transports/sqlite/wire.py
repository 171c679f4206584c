"""Headers and options as bytes in a column.

Headers: for each, the length of the name and of the value as 4-byte big-endian numbers, then both;
a missing value has the length 0xFFFFFFFF."""

import struct

import orjson

from busline.core.message import Headers, Options

LENGTHS = struct.Struct(">II")
MISSING = 0xFFFFFFFF


def pack(headers: Headers) -> bytes:
    if not headers:
        return b""
    parts = []
    for name, value in headers:
        encoded = name.encode("utf-8", "surrogateescape")
        parts += [
            LENGTHS.pack(len(encoded), MISSING if value is None else len(value)),
            encoded,
            value or b"",
        ]
    return b"".join(parts)


def unpack(data: bytes) -> Headers:
    found, at = [], 0
    while at < len(data):
        name, value = LENGTHS.unpack_from(data, at)
        start = at + 8
        at = start + name + (0 if value == MISSING else value)
        found.append(
            (
                data[start : start + name].decode("utf-8", "surrogateescape"),
                None if value == MISSING else data[start + name : at],
            )
        )
    return tuple(found)


def pack_options(options: Options | None) -> str | None:
    return None if options is None else orjson.dumps(options._asdict()).decode()


def unpack_options(text: str | None) -> Options | None:
    return None if text is None else Options.read(orjson.loads(text))
