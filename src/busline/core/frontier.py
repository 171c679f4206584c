"""Out-of-order completion of one partition: what is finished, and how far without a hole. No
I/O."""

from collections.abc import Collection, Iterable, Sequence


class Frontier:
    """Tracks the offsets handed out, in order, and `low`, the offset below which everything is
    finished.

    Offsets may have holes: what the engine never handed out is nobody's work. `ahead`: what an
    earlier life finished beyond `low`."""

    __slots__ = ("_ahead", "_end", "_open", "low", "next")

    def __init__(self, low: int, ahead: Iterable[int] = ()) -> None:
        self.low = low
        self.next = low
        self._end = low  # the highest `next` so far: below it, a rewind may have left some open
        self._open: dict[int, None] = {}  # handed out and not finished, in order
        self._ahead = set(ahead)  # finished beyond `low`

    def __repr__(self) -> str:
        return (
            f"<Frontier {self.low}, {len(self._open)} open, {len(self._ahead)} ahead, next"
            f" {self.next}>"
        )

    @property
    def unfinished(self) -> int:
        """How many were handed out and are not finished."""
        return len(self._open)

    @property
    def open(self) -> Collection[int]:
        """What was handed out and is not finished, in order."""
        return self._open.keys()

    @property
    def ahead(self) -> Collection[int]:
        """What is finished beyond `low`."""
        return self._ahead

    def wanted(self, offsets: Sequence[int]) -> Sequence[int]:
        """Those of these offsets, from `next` on, that are neither finished nor in anybody's
        hand."""
        if not self._ahead and self.next == self._end:
            return offsets
        return [one for one in offsets if one not in self._ahead and one not in self._open]

    def behind(self, end: int) -> int:
        """How many offsets below `end` are not finished, in a partition without holes."""
        return end - self.low - len(self._ahead)

    def hand_out(self, offsets: Sequence[int], upto: int) -> None:
        """These are being handled, in this order; the next to be read is `upto`. Holes between them
        are passed over."""
        if offsets and self._open and offsets[0] < next(reversed(self._open)):
            self._open = dict.fromkeys(sorted({*self._open, *offsets}))  # after a rewind
        else:
            self._open.update(dict.fromkeys(offsets))
        self.next = upto
        self._end = max(self._end, upto)

    def with_finished(self, offsets: Collection[int]) -> int:
        """Where `low` would stand were these finished too. Changes nothing."""
        return min(next((one for one in self._open if one not in offsets), self.next), self.next)

    def finish(self, offsets: Sequence[int]) -> int:
        """These are finished. Returns where `low` stands now."""
        for offset in offsets:
            self._open.pop(offset, None)
        before = self.low
        self.low = low = min(next(iter(self._open), self.next), self.next)
        if max(offsets, default=-1) >= low:  # there may be very many: only what changes is touched
            self._ahead.update(one for one in offsets if one >= low)
        if self._ahead and low > before:
            self._forget(before)
        return low

    def _forget(self, before: int) -> None:
        """What `low` has passed since it stood there is not ahead of it any more."""
        if self.low - before < len(self._ahead):
            self._ahead.difference_update(range(before, self.low))
        else:
            self._ahead = {one for one in self._ahead if one >= self.low}

    def rewind(self, offset: int) -> None:
        """This one is given back: it is handed out again, and whatever is open behind it keeps its
        place."""
        self._open.pop(offset, None)
        self.next = min(self.next, offset)
