"""What a worker has in hand, and what of it is in doubt. No I/O, and nothing awaits.

A delivery is spare (taken, not yet received), received, in doubt (in a turn whose answer has not
come) or gone. Gone are those that a turn settled, that a recovery finds done, and all at a loss.
Only the receiver calls; `doubt` is followed by `answered`, `recover` or `lose`."""

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence

from busline.core.message import Delivery, Message
from busline.core.outcome import Rejected, Settled
from busline.core.position import topic_of
from busline.transports.redis.envelope import HEAD, PLAIN, names, raw_names, unpack
from busline.transports.redis.turn import Answer, Receipt

UNREADABLE = Rejected("not an envelope that this version of busline reads")


class Hand:
    """Deliveries by their receipts. `spare`: taken, and not yet received. `unreadable`: to be put
    into the dead letters."""

    def __init__(self) -> None:
        self.held: dict[Receipt, Delivery] = {}
        self.spare: list[Delivery] = []
        self.unreadable: list[Settled] = []
        self._doubt: list[Receipt] = []  # settled in a turn whose answer did not come
        self._applied: set[Receipt] = set()  # of those, the ones that had been done

    def __len__(self) -> int:
        return len(self.held)

    def has(self, settled: Sequence[Settled]) -> bool:
        return all(one.receipt in self.held for one, _ in settled)

    def fields(self) -> list[bytes]:
        """Where the server keeps each, in the order in which they came."""
        return [one.field for one in self.held]

    def receive(self, limit: int) -> list[Delivery]:
        taken, self.spare = self.spare[:limit], self.spare[limit:]
        return taken

    def split(self, settled: Sequence[Settled]) -> tuple[list[Settled], list[Delivery]]:
        """What is ours, and what is refused; what a lost turn had done already is neither."""
        ours: list[Settled] = []
        refused: list[Delivery] = []
        for one in settled:
            receipt = one[0].receipt
            if receipt in self.held:
                ours.append(one)
            elif receipt in self._applied:
                self._applied.discard(receipt)
            else:
                refused.append(one[0])
        return ours, refused

    def take(self, envelope: bytes, field: bytes | None = None) -> None:
        """`field`: where it is in hand, if not under its id."""
        try:
            message, queue, attempts, id = unpack(envelope)
        except (ValueError, TypeError, struct.error):
            self._put_aside(envelope, field)
            return
        receipt = Receipt(field or id, queue)
        address = queue if message.origin is None else topic_of(message.origin)
        self.held[receipt] = delivery = Delivery(
            message, address, attempts + 1, message.origin, None, receipt
        )
        self.spare.append(delivery)

    def take_all(self, envelopes: Sequence[bytes], fields: Mapping[int, bytes]) -> None:
        """What a turn brought; `fields` by place. Most are plain: these in as few steps as
        possible."""
        unpack_head, held, spare = HEAD.unpack_from, self.held, self.spare
        for n, envelope in enumerate(envelopes):
            if envelope[:2] != PLAIN or n in fields:
                self.take(envelope, fields.get(n))
                continue
            _, _, attempts, _, ids, queues, tasks, at = unpack_head(envelope)
            queue_at = 20 + ids
            body_at = queue_at + queues + tasks
            id = envelope[20:queue_at]
            queue, task = names(envelope[queue_at:body_at], queues)
            receipt = Receipt(id, queue)
            message = Message(
                id=id.decode("utf-8", "surrogateescape"), body=envelope[body_at:], at=at, task=task
            )
            held[receipt] = delivery = Delivery(message, queue, attempts + 1, None, None, receipt)
            spare.append(delivery)

    def _put_aside(self, envelope: bytes, field: bytes | None) -> None:
        """An envelope that scripts can move and nobody can read: byte for byte into the dead
        letters."""
        id, queue = raw_names(envelope)
        receipt = Receipt(field or id, queue)
        self.held[receipt] = delivery = Delivery(
            Message(id.decode("utf-8", "surrogateescape"), envelope), queue, 1, None, None, receipt
        )
        self.unreadable.append((delivery, UNREADABLE))

    def doubt(self, settled: Sequence[Settled]) -> None:
        """These are about to be settled: until the answer comes, nobody knows."""
        self._doubt = [one.receipt for one, _ in settled]

    def answered(self, settled: Sequence[Settled], found: Answer) -> None:
        self._doubt = []
        for one, _ in settled:
            if one.receipt.field not in found.failed:
                self.held.pop(one.receipt, None)

    def unsure(self, told: Iterable[bytes]) -> list[bytes]:
        """Of what the server says is in hand: what is not known here, or in doubt."""
        sure = {*self.fields()} - {one.field for one in self._doubt}
        return [field for field in told if field not in sure]

    def recover(self, told: Collection[bytes], read: Mapping[bytes, bytes]) -> None:
        """What the server says is in hand, after an answer that did not come: what was settled and
        is gone, was done. `read`: the envelopes of what was unsure."""
        for receipt in self._doubt:
            if receipt.field not in told or self._other_run(receipt, read.get(receipt.field)):
                self.held.pop(receipt, None)
                self._applied.add(receipt)
        self._doubt = []
        known = {*self.fields()}
        for field, envelope in read.items():
            if field not in known:
                self.take(envelope, field)

    def _other_run(self, receipt: Receipt, envelope: bytes | None) -> bool:
        """Whether it was given back by the lost turn, and taken again."""
        delivery = self.held.get(receipt)
        return (
            delivery is not None
            and envelope is not None
            and unpack(envelope).attempts + 1 != delivery.attempt
        )

    def lose(self) -> list[Delivery]:
        """All of it is others' now. Returns what had been received."""
        spare = set(map(id, self.spare))
        gone = [one for one in self.held.values() if id(one) not in spare]
        self.held.clear()
        self.spare.clear()
        self.unreadable.clear()
        self._doubt = []
        return gone
