"""How messages are named: new ids that sort by time, and ids derived from content."""

import os
import time
from hashlib import blake2b
from random import Random

_random = Random(os.urandom(16))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(16)))


def new_id() -> str:
    """A new UUID of version 7, as 32 hexadecimal digits."""
    return "%012x7%03x%016x" % (  # noqa: UP031 - a third faster than an f-string, once per message
        time.time_ns() // 1_000_000,
        _random.getrandbits(12),
        0x8000000000000000 | _random.getrandbits(62),
    )


def derived_id(*parts: object) -> str:
    """The same id for the same content: how a record's job is known when the record is handled
    again."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()
