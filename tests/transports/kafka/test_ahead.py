"""What finished beyond a position, as a commit's text."""

import random

from hypothesis import given
from hypothesis import strategies as st

from busline.transports.kafka import ahead
from busline.transports.kafka.ahead import Range

LIMIT = 4096


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, list[Range]]:
    low = at = draw(st.integers(0, 1 << 62))
    found = list[Range]()
    for gap, length in draw(
        st.lists(st.tuples(st.integers(1, 1 << 40), st.integers(1, 1 << 40)), max_size=30)
    ):
        found.append((at + gap, at + gap + length))
        at += gap + length
    return low, found


@given(ranges())
def test_it_is_read_as_it_was_written(given_ranges: tuple[int, list[Range]]) -> None:
    low, found = given_ranges

    text, whole = ahead.written(low, found, LIMIT)

    assert whole and ahead.read(low, text) == found
    assert ahead.read(low + 1, text) == []  # it belongs to its offset


@given(st.text(), st.integers(0, 100))
def test_what_others_wrote_says_nothing(text: str, low: int) -> None:
    assert ahead.read(low, text) == ahead.read(low, ahead.MARK + text) == []


@given(ranges(), st.data())
def test_a_damaged_text_says_nothing_or_the_same(
    given_ranges: tuple[int, list[Range]], data: st.DataObject
) -> None:
    low, found = given_ranges
    text, _ = ahead.written(low, found, LIMIT)
    at = data.draw(st.integers(0, max(len(text) - 1, 0)))

    assert ahead.read(low, text[:at]) in ([], found)
    assert ahead.read(low, text[:at] + "A" + text[at + 1 :]) in ([], found)


@given(ranges(), st.integers(0, 200))
def test_what_does_not_fit_is_left_out_from_its_end(
    given_ranges: tuple[int, list[Range]], limit: int
) -> None:
    low, found = given_ranges

    text, whole = ahead.written(low, found, limit)

    kept = ahead.read(low, text)
    assert len(text) <= limit and kept == found[: len(kept)] and whole == (kept == found)


def test_ten_thousand_records_fit_whatever_finished() -> None:
    chance = random.Random(1)
    for often in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
        unfinished = [0, *(one for one in range(1, 10_000) if chance.random() < often)]

        text, whole = ahead.written(0, ahead.between(0, unfinished, 10_000), LIMIT)

        assert whole, (often, len(text))


@given(st.sets(st.integers(10, 60)), st.integers(61, 80))
def test_between_and_within_agree(unfinished: set[int], upto: int) -> None:
    found = ahead.between(10, sorted(unfinished), upto)

    assert [one for one in range(10, upto) if not ahead.within(one, found)] == sorted(unfinished)
    assert not ahead.within(9, found) and not ahead.within(upto, found)
    assert ahead.clipped(found, 20, 40) == ahead.between(
        20, [one for one in sorted(unfinished) if 20 <= one < 40], 40
    )
