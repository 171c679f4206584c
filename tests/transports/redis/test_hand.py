"""What a worker has in hand, without a server: what becomes of it when an answer comes, does not
come, or the lease is lost."""

import pytest

from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED
from busline.transports.redis.envelope import pack
from busline.transports.redis.hand import UNREADABLE, Hand
from busline.transports.redis.turn import Answer, answer

NAMES = {"a", "b", "c"}


def envelope(id: str, attempts: int = 0) -> bytes:
    return pack(Message(id, b"{}", task="t"), "q", attempts)


def holding(*ids: str) -> tuple[Hand, dict[str, Delivery]]:
    hand = Hand()
    for id in ids:
        hand.take(envelope(id))
    return hand, {one.id: one for one in hand.receive(10)}


def came(**changes: object) -> Answer:
    told = answer([b"done", 1, [], [], [], [], b"", 0, 0, []])
    return told._replace(**changes)  # type: ignore[arg-type]  # a test's fields


def test_what_is_taken_is_spare_until_it_is_received_as_many_as_are_asked_for() -> None:
    hand = Hand()
    for id in NAMES:
        hand.take(envelope(id, attempts=2))

    assert len(hand) == 3 and len(hand.receive(2)) == 2 and len(hand.spare) == 1
    (last,) = hand.receive(2)
    assert (last.attempt, last.address, last.message.task) == (3, "q", "t")


def test_bytes_that_nobody_can_read_are_put_into_the_dead_letters() -> None:
    hand = Hand()
    broken = envelope("a")[:1] + b"\x01" + envelope("a")[2:]  # says that it has fields
    hand.take(broken)

    ((delivery, outcome),) = hand.unreadable
    assert outcome is UNREADABLE and delivery.body == broken and hand.spare == []


@pytest.mark.parametrize(
    ("failed", "left"), [({}, set[str]()), ({b"a": "cannot"}, {"a"})], ids=["all done", "one not"]
)
def test_an_answer_takes_what_was_settled_out_of_the_hand(
    failed: dict[bytes, str], left: set[str]
) -> None:
    hand, got = holding("a", "b")
    settled = [(one, ACKED) for one in got.values()]
    hand.doubt(settled)

    hand.answered(settled, came(failed=failed))

    assert {one.id for one in hand.held.values()} == left


@pytest.mark.parametrize(
    ("there", "ours", "refused"),
    [
        ({}, set[str](), set[str]()),  # the lost turn was done
        ({"a": 0}, {"a"}, set[str]()),  # it was not
        ({"a": 1}, set[str](), set[str]()),  # it was done, and the job came again
    ],
    ids=["done", "not done", "done and taken again"],
)
def test_after_a_lost_answer_only_what_was_not_done_is_settled_again(
    there: dict[str, int], ours: set[str], refused: set[str]
) -> None:
    hand, got = holding("a")
    settled = [(got["a"], ACKED)]
    hand.doubt(settled)
    told = {id.encode(): envelope(id, attempts) for id, attempts in there.items()}

    assert hand.unsure(told) == list(told)
    hand.recover(told, told)

    again, late = hand.split(settled)
    assert ({one.id for one, _ in again}, {one.id for one in late}) == (ours, refused)
    assert hand.split(settled)[1] == ([] if again else [got["a"]])  # it was told once


def test_what_a_lost_answer_brought_is_found_by_the_recovery() -> None:
    hand, _ = holding("a")
    told = {id.encode(): envelope(id) for id in ("a", "b")}

    assert hand.unsure(told) == [b"b"]
    hand.recover(told, {b"b": told[b"b"]})

    assert [one.id for one in hand.spare] == ["b"] and len(hand) == 2


def test_a_lost_lease_recalls_what_was_received_and_refuses_what_it_says() -> None:
    hand, got = holding("a")
    hand.take(envelope("b"))

    assert hand.lose() == [got["a"]]

    assert hand.split([(got["a"], ACKED)]) == ([], [got["a"]]) and not hand.spare and not hand.held
