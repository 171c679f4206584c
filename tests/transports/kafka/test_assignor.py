"""Partitions stay where they are, as far as the shares stay even."""

import json
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from busline.transports.kafka.assignor import KeepingAssignor, Place, claims, share

PARTS: list[Place] = [("t", n) for n in range(12)]


def member(*owned: Place, generation: int = 1) -> SimpleNamespace:
    return SimpleNamespace(subscription=["t"], user_data=json.dumps([generation, owned]).encode())


def test_a_member_that_joins_takes_only_its_share() -> None:
    had = dict.fromkeys(PARTS[:6], "a") | dict.fromkeys(PARTS[6:], "b")

    shares = share(PARTS, {"a": {"t"}, "b": {"t"}, "c": {"t"}}, had)

    assert set(shares["a"]) < set(PARTS[:6]) and set(shares["b"]) < set(PARTS[6:])
    assert [len(one) for one in shares.values()] == [4, 4, 4]


def test_a_member_that_leaves_moves_only_what_it_had() -> None:
    had = dict.fromkeys(PARTS[:4], "a") | dict.fromkeys(PARTS[4:8], "b")

    shares = share(PARTS, {"a": {"t"}, "b": {"t"}}, had)

    assert set(shares["a"]) > set(PARTS[:4]) and set(shares["b"]) > set(PARTS[4:8])


def test_the_latest_generation_is_believed() -> None:
    members = {
        "old": member(("t", 0), generation=1),
        "new": member(("t", 0), generation=2),
        "lost": member(("t", 1), generation=-1),
    }

    assert claims(members) == {("t", 0): "new"}
    assert (
        claims(
            {
                "other": SimpleNamespace(subscription=["t"], user_data=b"\x00\x01"),
                "none": SimpleNamespace(subscription=["t"], user_data=None),
            }
        )
        == {}
    )


def test_what_was_lost_is_claimed_no_more() -> None:
    assignor = KeepingAssignor()
    assignor.has([("t", 1), ("t", 0)], 7)
    assert json.loads(assignor.metadata({"t"}).user_data) == [7, [["t", 0], ["t", 1]]]

    assignor.has([], -1)

    assert json.loads(assignor.metadata({"t"}).user_data) == [-1, []]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_partition_goes_to_one_reader_of_its_topic(data: st.DataObject) -> None:
    topics = data.draw(
        st.dictionaries(
            st.sampled_from("abcde"), st.sets(st.sampled_from("tuv"), min_size=1), min_size=1
        )
    )
    read = sorted(set().union(*topics.values()))
    places = [(topic, n) for topic in read for n in range(data.draw(st.integers(0, 5)))]
    had = {
        place: data.draw(st.sampled_from("abcdefg")) for place in places if data.draw(st.booleans())
    }

    shares = share(places, topics, had)

    assert sorted(place for own in shares.values() for place in own) == sorted(places)
    assert all(place[0] in topics[one] for one, own in shares.items() for place in own)
    if all(names == set(read) for names in topics.values()):
        assert max(map(len, shares.values())) - min(map(len, shares.values())) <= 1
        assert share(
            places, topics, {place: one for one, own in shares.items() for place in own}
        ) == {one: sorted(own) for one, own in shares.items()}


class Cluster:
    def __init__(self, parts: dict[str, int]) -> None:
        self._parts = parts

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._parts[topic]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_moves_is_nobodys_until_it_is_free_and_it_comes_to_an_end(data: st.DataObject) -> None:
    topics = data.draw(
        st.dictionaries(
            st.sampled_from("abcde"), st.sets(st.sampled_from("tuv"), min_size=1), min_size=1
        )
    )
    cluster = Cluster({topic: data.draw(st.integers(0, 6)) for topic in "tuv"})
    places = [
        (topic, n)
        for topic in sorted(set().union(*topics.values()))
        for n in range(cluster._parts[topic])
    ]
    had: dict[str, set[Place]] = {one: set() for one in topics}
    for place in places:
        if data.draw(st.booleans()):
            had[data.draw(st.sampled_from(sorted(topics)))].add(place)
    for generation in range(6):
        members = {
            one: SimpleNamespace(
                subscription=sorted(topics[one]),
                user_data=json.dumps([generation, sorted(own)]).encode(),
            )
            for one, own in had.items()
        }
        answer = KeepingAssignor().assign(cluster, members)
        now = {
            one: {(topic, part) for topic, parts in found.assignment for part in parts}
            for one, found in answer.items()
        }
        for one in topics:
            others = set().union(*(own for other, own in had.items() if other != one))
            assert not now[one] & others  # nobody gets what another still has
        over = all(had[one] <= now[one] for one in topics)
        had = now
        if over:
            break
    assert over and sorted(place for own in had.values() for place in own) == sorted(places)
