"""The pure rules, as tables and properties."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from busline import Invalid, Retry
from busline.core.codec import Codec, depth
from busline.core.counts import Counts, tally
from busline.core.frontier import Frontier
from busline.core.ids import derived_id, new_id
from busline.core.lanes import Lanes
from busline.core.message import Delivery, Message
from busline.core.outcome import RELEASED
from busline.core.partition import murmur2
from busline.transports.sqlite.wire import pack, unpack


def taken(lanes: Lanes) -> list[Delivery]:
    """Everything that may start."""
    return list(iter(lanes.take, None))


def delivery(lane: object, n: int = 0) -> Delivery:
    return Delivery(Message(str(n), b""), "t", 1, None, lane, n)


@given(st.lists(st.integers(0, 3), max_size=60), st.randoms())
def test_a_frontier_is_the_lowest_unfinished(steps: list[int], rnd: random.Random) -> None:
    frontier, open_, finished, rewound, upto = Frontier(0), set[int](), set[int](), set[int](), 0
    for step in steps:
        if step == 0:
            offsets = list(frontier.wanted(range(frontier.next, frontier.next + 3)))
            upto = frontier.next + 3
            frontier.hand_out(offsets, upto)
            assert not set(offsets) & (open_ | finished)
            open_ |= set(offsets)
            rewound -= set(offsets)
        elif open_:
            one = rnd.choice(sorted(open_))
            open_.discard(one)
            if step == 3:
                frontier.rewind(one)
                rewound.add(one)
            else:
                after = frontier.with_finished([one])
                assert frontier.finish([one]) == after
                finished.add(one)
        lowest = min(open_ | rewound, default=max(upto, frontier.low))
        assert frontier.low <= lowest and all(n in finished for n in range(frontier.low))


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=40), st.integers(1, 4), st.randoms())
def test_lanes_run_one_at_a_time_in_order(
    names: list[str | None], limit: int, rnd: random.Random
) -> None:
    lanes, running, done = Lanes(limit), list[Delivery](), list[Delivery]()
    everything = [delivery(name, n) for n, name in enumerate(names)]
    lanes.add(everything)
    while len(done) < len(everything):
        running += taken(lanes)
        assert len(running) <= limit and running
        held = [one.lane for one in running if one.lane is not None]
        assert len(held) == len(set(held))
        ended = running.pop(rnd.randrange(len(running)))
        lanes.leave(ended)
        done.append(ended)
    for name in ("a", "b"):
        order = [one.receipt for one in done if one.lane == name]
        assert order == sorted(order)


def test_dropping_leaves_only_what_runs() -> None:
    lanes = Lanes(1)
    lanes.add(
        [delivery("a", 1), delivery("a", 2), delivery(None, 3), delivery("b", 4), delivery("b", 5)]
    )
    running = taken(lanes)
    assert sorted(one.receipt for one in lanes.drop()) == [2, 3, 4, 5]
    lanes.leave(running[0])
    assert taken(lanes) == [] and lanes.running == 0


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (Retry(4, delay=10), [10, 20, 40]),
        (Retry(4, delay=10, max_delay=15), [10, 15, 15]),
        (Retry(3, delay=0), [0, 0]),
        (Retry(1), []),
    ],
)
def test_waits_grow_up_to_their_limit(policy: Retry, waits: list[float]) -> None:
    assert [policy.longest(attempt) for attempt in range(1, policy.attempts)] == waits
    assert policy.total() == sum(waits)
    assert all(policy.wait(n + 1, 0.5) == wait / 2 for n, wait in enumerate(waits))


def test_which_errors_are_retried() -> None:
    policy = Retry(on=OSError, never=FileNotFoundError)
    assert (
        policy.covers(OSError()) and policy.covers(TimeoutError()) and policy.covers(SystemExit())
    )
    assert not policy.covers(ValueError()) and not policy.covers(FileNotFoundError())


@given(st.text(alphabet='[]{}"\\a', max_size=60))
def test_depth_is_that_of_the_brackets_outside_strings(text: str) -> None:
    assert depth(text.encode()) <= text.count("[") + text.count("{")


def test_depth_leaves_strings_out() -> None:
    assert depth(b'{"a":[{"[[[[":"\\"{"}]}') == 3


class Numbers(BaseModel):
    x: float = 0
    n: int = 0
    deep: dict[str, list[float]] = {}


@pytest.mark.parametrize(
    ("value", "path"),
    [(Numbers(x=float("nan")), "x"), (Numbers(deep={"a": [1.0, float("inf")]}), "deep.a.1")],
)
def test_numbers_that_json_does_not_have_are_refused_with_their_path(
    value: Numbers, path: str
) -> None:
    with pytest.raises(Invalid, match=f"'{path}' at t: expected a finite number"):
        Codec(Numbers, "t").encode(value)


@given(st.integers())
def test_integers_of_any_size_come_back(number: int) -> None:
    codec = Codec(Numbers, "t")
    assert codec.decode(codec.encode(Numbers(n=number))).n == number


@pytest.mark.parametrize(
    ("key", "hash_"),
    [(b"21", 3321034988), (b"foobar", 3504634814), (b"a-little-bit-long-string", 3308985760)],
)
def test_keys_are_hashed_as_kafka_does(key: bytes, hash_: int) -> None:
    assert murmur2(key) == hash_


@given(st.lists(st.tuples(st.text(), st.one_of(st.none(), st.binary()))))
def test_headers_are_packed_byte_for_byte(headers: list[tuple[str, bytes | None]]) -> None:
    assert unpack(pack(tuple(headers))) == tuple(headers)


def test_ids_sort_by_time_and_derived_ones_by_content_alone() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000
    assert derived_id("a", 1, None) == derived_id("a", 1, None) != derived_id("a1", None)


def test_what_is_finished_behind_a_slow_one_is_not_gone_through_again() -> None:
    frontier = Frontier(0)
    frontier.hand_out(range(1000), 1000)
    frontier.finish([1])
    ahead = frontier.ahead

    frontier.finish([2, 3])

    assert frontier.ahead is ahead and ahead == {1, 2, 3}
    assert frontier.finish([0]) == 4 and not frontier.ahead


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40))
def test_what_is_ahead_is_what_finished_beyond_the_lowest(steps: list[tuple[bool, int]]) -> None:
    frontier, finished = Frontier(0), set[int]()
    for hands_out, number in steps:
        if hands_out:
            frontier.hand_out(
                range(frontier.next, frontier.next + number), frontier.next + number + 1
            )  # with a hole
        elif frontier.open:
            one = list(frontier.open)[number % len(frontier.open)]
            frontier.finish([one])
            finished.add(one)

        assert set(frontier.ahead) == {one for one in finished if one >= frontier.low}


def test_what_is_given_back_before_it_began_counts_for_nobody() -> None:
    unbegun, begun = (Delivery(Message("a", b"1"), "t", 1, "t/0@1", None, n) for n in range(2))
    begun.handler = "bill"

    assert tally([(unbegun, RELEASED), (begun, RELEASED)]) == {"bill": Counts()}
