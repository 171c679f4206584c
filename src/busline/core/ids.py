"""How messages are named: new ids that sort by time, and ids derived from content."""

import os
import time
from hashlib import blake2b
from random import Random

VERSION_7 = 0x7000_8000_0000_0000_0000  # and its variant
FREE = 0xFFF_3FFF_FFFF_FFFF_FFFF  # the bits that are anybody's
_random = Random(os.urandom(16))
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(16)))


def new_id() -> str:
    """A new UUID of version 7, as 32 hexadecimal digits."""
    bits = int(time.time() * 1000) << 80 | VERSION_7 | _random.getrandbits(76) & FREE
    return "%032x" % bits  # noqa: UP031 - a third faster than an f-string, once per message


def derived_id(*parts: object) -> str:
    """The same id for the same content: how a record's job is known when the record is handled
    again."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()
