"""What a server must be before it is trusted with jobs."""

import logging

from busline.core.errors import ConfigError, wrong
from busline.transports.redis.link import Link

log = logging.getLogger("busline")
OLDEST = (6, 2)


async def greet(link: Link, told: str) -> None:
    """Refuses a server that is too old, of another kind, that forbids what is needed, or whose keys
    a newer busline has written. Says loudly where it may throw jobs away."""
    await _check_kind(link)
    # scripts, keys and channels: all that work needs. Every script looks at the layout first
    await link.run("put", "greeting", "0.001", b"", told, 0)
    await _warn_of_eviction(link)


async def _check_kind(link: Link) -> None:
    told = await link.ask("HELLO", 2)
    server = {told[n].decode(): told[n + 1] for n in range(0, len(told), 2)}
    version = server["version"].decode()
    if tuple(int(one) for one in version.split(".")[:2]) < OLDEST:
        raise ConfigError([wrong(link.place, "Redis 6.2 or newer", version, "Upgrade the server.")])
    if server["mode"] != b"standalone":
        raise ConfigError(
            [
                wrong(
                    link.place,
                    "one server",
                    f"a {server['mode'].decode()}",
                    "Not yet: name a server that stands alone.",
                )
            ]
        )


async def _warn_of_eviction(link: Link) -> None:
    try:
        told = (await link.ask("INFO", "memory")).decode()
    except ConfigError:  # a login need not see it
        return
    policy = next(
        (
            line.partition(":")[2]
            for line in told.splitlines()
            if line.startswith("maxmemory_policy:")
        ),
        "noeviction",
    )
    if policy != "noeviction":
        log.warning(
            "%s throws keys away when its memory is full, and jobs with them (maxmemory-policy %s):"
            " set it to noeviction",
            link.place,
            policy,
        )
