"""What all parts of one open transport share: the server, the namespace, the clock, who beats."""

from collections.abc import Callable

from busline.core.clock import Clock, SystemClock
from busline.transports.redis.alone import Alone
from busline.transports.redis.lease import Lease
from busline.transports.redis.link import Link
from busline.transports.redis.place import Place


class Session:
    """`link`: for looks and steps of any part; who waits long, or speaks much, has a link of its
    own. `lease` is another at each opening."""

    def __init__(
        self, place: Place, prefix: str, clock: Clock, seconds: float, lost: Callable[[str], None]
    ) -> None:
        self.place, self.prefix, self.clock = place, prefix, clock
        self._seconds, self._lost = seconds, lost
        self.alone = Alone()
        self.renew()

    def __repr__(self) -> str:
        return f"<Session {self.place} {self.prefix}>"

    def renew(self) -> None:
        """Everything that a closing ends, new and not yet open."""
        self.link = self.new_link()
        self.lease = Lease(self.place, self.prefix, self._seconds, self.told, self._lost)

    def new_link(self) -> Link:
        return Link(self.place, self.prefix)

    def moved(self) -> float | None:
        """The time of a clock that is moved by hand: it stands in for the server's. None of the
        machine's clock."""
        return None if isinstance(self.clock, SystemClock) else self.clock.time()

    def told(self) -> str:
        """Our time, as scripts take it: theirs is the server's, and they see in each call how far
        ours is from that."""
        moved = self.moved()
        return repr(self.clock.time()) if moved is None else f"={moved!r}"
