"""One partition's bookkeeping, without a broker."""

from collections.abc import Iterator
from random import Random
from types import SimpleNamespace

from aiokafka import TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busline.transports.kafka import ahead
from busline.transports.kafka.arrival import Arrival
from busline.transports.kafka.tracker import Commit, Tracker


class Fetched:
    """Records as the client gives them: `next_fetch_offset` is behind the last that was read, or
    behind the end."""

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
        return SimpleNamespace(
            offset=offset, key=b"%d" % (offset % 2), value=b"", headers=[], timestamp=0
        )


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


def test_a_span_that_is_smaller_than_a_quarter_of_the_room_stands_in_nobodys_way() -> None:
    tracker = Tracker(TopicPartition("t", 0), "partition", 8)
    tracker.begin(0, -1)
    tracker.source = Fetched(list(range(20)), 20)
    seen = list[int]()
    for _ in range(10):
        taken = [one.receipt[1] for one in tracker.take(tracker.room(100))]
        tracker.finish(taken)
        seen += taken

    assert seen == list(range(20))


def test_one_lane_hands_out_what_comes_alone_at_once_and_is_filled_up_by_quarters() -> None:
    tracker = Tracker(TopicPartition("t", 0), "partition")
    tracker.begin(0, -1)
    for n in range(3):
        tracker.source = Fetched([n], n + 1)
        (alone,) = tracker.take(tracker.room(8))
        tracker.finish([alone.receipt[1]])
    tracker.source = Fetched(list(range(3, 40)), 40)
    taken = [one.receipt[1] for one in tracker.take(tracker.room(8))]
    rooms = []
    for offset in taken:
        rooms.append(tracker.room(8))
        tracker.finish([offset])

    assert rooms == [0, 0, 2, 3, 4, 5, 6, 7]


def test_what_is_over_holds_nothing() -> None:
    tracker = begun(0, 1)
    taken = tracker.take(2)

    assert tracker.end() == taken

    assert tracker.over and not tracker.holds(taken[0]) and not tracker.waiting


def test_what_finished_in_an_earlier_life_is_not_handed_out_again() -> None:
    first = begun(0, 1, 2, 3, 7, 8)  # 4 to 6 are no records
    first.take(6)
    first.finish([1, 3, 8])
    commit = first.commit(4096)
    second = Tracker(first.place, "key")
    second.begin(commit.offset, commit.offset, ahead.read(commit.offset, commit.text))
    assert not second.due

    second.source = Fetched([0, 1, 2, 3, 7, 8, 9], 10)

    assert [one.receipt[1] for one in second.take(10)] == [0, 2, 7, 9]
    second.finish([0, 2, 7])
    assert second.low == 9 and second.due
    second.finish([9])
    assert second.commit(4096) == Commit(10, "", True, 2)


def test_a_commit_is_due_while_only_what_is_ahead_moves() -> None:
    tracker = begun(0, 1, 2)
    tracker.take(3)
    tracker.confirm(tracker.commit(4096))
    assert not tracker.due

    tracker.finish([1])
    assert tracker.due
    commit = tracker.commit(4096)
    tracker.finish([2])
    tracker.confirm(commit)

    assert tracker.due  # the last one came after it was written


def test_a_partition_runs_only_its_span_beyond_what_is_unfinished() -> None:
    tracker = begun(*range(10))
    tracker._span = 4
    tracker.take(tracker.room(100))
    tracker.finish([1, 2, 3])
    assert (tracker.room(100), tracker.far, tracker.low) == (0, True, 0)

    tracker.finish([0])

    assert (tracker.room(100), tracker.far) == (4, False)


def test_nothing_more_is_handed_out_while_what_finished_does_not_fit() -> None:
    tracker = begun(*range(100))
    tracker.take(60)
    tracker.finish(list(range(1, 60, 7)))

    tracker.confirm(tracker.commit(limit=10))
    assert tracker.full and tracker.far and tracker.room(100) == 0
    tracker.confirm(tracker.commit(limit=4096))

    assert not tracker.far and tracker.room(100) > 0


def test_no_more_bytes_are_taken_than_asked_for_and_a_larger_record_comes_alone() -> None:
    tracker = begun(*range(6))
    source = tracker.source
    tracker.source = iter_with(source, [10, 10, 50, 10, 10, 10])

    assert [[one.receipt[1] for one in tracker.take(10, 25)] for _ in range(4)] == [
        [0, 1],
        [2],
        [3, 4],
        [5],
    ]
    tracker.give_back([tracker.held[2]])
    assert tracker.take(10, 25, alone=False) == []


def iter_with(source: Fetched, sizes: list[int]) -> Iterator[SimpleNamespace]:
    class Sized:
        def __iter__(self) -> "Sized":
            return self

        def __next__(self) -> SimpleNamespace:
            record = next(source)
            record.value = b"x" * sizes[record.offset]
            return record

        @property
        def next_fetch_offset(self) -> int:
            return source.next_fetch_offset

    return Sized()


def test_a_stopped_partition_hands_out_nothing_and_does_not_pass_its_letter() -> None:
    tracker = begun(0, 1, 2)
    first, second = tracker.take(2)
    tracker.stop(first)
    tracker.finish([1])
    assert (tracker.room(10), tracker.low) == (0, 0)

    tracker.finish([first.receipt[1]])

    assert (tracker.room(10), tracker.low) == (10, 2) and not tracker.holds(second)


# a whole walk is one input
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.large_base_example])
@given(st.sets(st.integers(0, 40), min_size=1, max_size=15), st.integers(0, 1 << 32))
def test_nothing_is_lost_and_nothing_unfinished_is_passed(
    given_offsets: set[int], seed: int
) -> None:
    offsets, chance = sorted(given_offsets), Random(seed)
    tracker, finished, held = begun(*offsets), set[int](), dict[int, Arrival]()
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
