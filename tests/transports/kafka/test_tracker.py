"""One partition's bookkeeping, without a broker."""

from collections.abc import Iterator
from random import Random
from types import SimpleNamespace

from aiokafka import TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busline.core.message import Delivery
from busline.transports.kafka.tracker import Tracker


class Fetched:
    """Records as the client gives them: `next_fetch_offset` is behind the last that was read, or behind the end."""

    def __init__(self, offsets: list[int], end: int) -> None:
        self._left, self._end, self.next_fetch_offset = offsets, end, offsets[0] if offsets else end

    def __iter__(self) -> Iterator[SimpleNamespace]:
        return self

    def __next__(self) -> SimpleNamespace:
        if not self._left:
            self.next_fetch_offset = self._end
            raise StopIteration
        offset = self._left.pop(0)
        self.next_fetch_offset = offset + 1
        return SimpleNamespace(offset=offset, key=b"%d" % (offset % 2), value=b"", headers=[], timestamp=0)


def begun(*offsets: int, end: int | None = None) -> Tracker:
    tracker = Tracker(TopicPartition("t", 0), "key")
    tracker.begin(offsets[0] if offsets else 0, -1)
    tracker.source = Fetched(list(offsets), end if end is not None else offsets[-1] + 1)
    return tracker


def test_what_is_finished_out_of_order_waits_for_what_is_before_it() -> None:
    tracker = begun(3, 4, 5, 8)
    assert [one.position for one in tracker.take(10)] == ["t/0@3", "t/0@4", "t/0@5", "t/0@8"]

    tracker.finish([4, 8])
    assert tracker.low == 3
    tracker.finish([3])
    assert tracker.low == 5
    tracker.finish([5])
    assert tracker.low == 9


def test_what_is_no_record_is_passed() -> None:
    tracker = begun(0, 1, end=4)
    tracker.finish([one.receipt[1] for one in tracker.take(2)])
    assert tracker.low == 2

    assert tracker.take(2) == []

    assert tracker.low == 4 and not tracker.waiting


def test_nothing_is_taken_beyond_the_room_but_what_was_given_back() -> None:
    tracker = begun(0, 1, 2, 3)
    taken = tracker.take(tracker.room(2))
    assert (len(taken), tracker.room(2)) == (2, 0)

    tracker.give_back(taken[:1])

    assert tracker.room(2) == 1
    (again,) = tracker.take(1)
    assert (again.position, again.attempt, again.receipt) == ("t/0@0", 1, taken[0].receipt)


def test_what_is_over_holds_nothing() -> None:
    tracker = begun(0, 1)
    taken = tracker.take(2)

    assert tracker.end() == taken

    assert tracker.over and not tracker.holds(taken[0]) and not tracker.waiting


def test_a_stopped_partition_hands_out_nothing_and_does_not_pass_its_letter() -> None:
    tracker = begun(0, 1, 2)
    first, second = tracker.take(2)
    tracker.stop(first)
    tracker.finish([1])
    assert (tracker.room(10), tracker.low) == (0, 0)

    tracker.finish([first.receipt[1]])

    assert (tracker.room(10), tracker.low) == (10, 2) and not tracker.holds(second)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.large_base_example])  # a whole walk is one input
@given(st.sets(st.integers(0, 40), min_size=1, max_size=15), st.integers(0, 1 << 32))
def test_nothing_is_lost_and_nothing_unfinished_is_passed(given_offsets: set[int], seed: int) -> None:
    offsets, chance = sorted(given_offsets), Random(seed)
    tracker, finished, held = begun(*offsets), set[int](), dict[int, Delivery]()
    while len(finished) < len(offsets):
        held.update((one.receipt[1], one) for one in tracker.take(chance.randrange(5)))
        if held:
            one = held.pop(chance.choice(sorted(held)))
            if chance.random() < 0.5:
                tracker.finish([one.receipt[1]])
                finished.add(one.receipt[1])
            else:
                tracker.give_back([one])
        unfinished = [one for one in offsets if one not in finished]
        assert tracker.low <= (unfinished[0] if unfinished else offsets[-1] + 1)
    assert tracker.low == offsets[-1] + 1
