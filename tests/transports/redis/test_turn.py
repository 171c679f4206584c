"""What a turn says and what it is told, without a server."""

from typing import Any

import pytest

from busline.core.address import Address
from busline.core.message import Delivery, Message
from busline.core.outcome import (
    ACKED,
    RELEASED,
    SKIPPED,
    Acked,
    Keep,
    Outcome,
    Rejected,
    Retried,
    Send,
)
from busline.transports.redis.turn import Impossible, Receipt, answer, arguments, said

WHOSE = "t\nq"


def delivery(id: str = "a", **fields: Any) -> Delivery:
    found = Delivery(Message(id, b"{}", **fields), "q", 1, None, None, Receipt(id.encode(), "q"))
    found.handler = "t"
    return found


@pytest.mark.parametrize(
    ("outcome", "begins"),
    [
        (Retried(5.0, ValueError()), ["retried", "retried", WHOSE, b"a", "5.0", 1]),
        (
            Retried(5.0, ValueError(), counted=False),
            ["retried", "retried", WHOSE, b"a", "5.0", 0],
        ),
        (RELEASED, ["released", "", WHOSE, b"a"]),
        (SKIPPED, ["final", "skipped", WHOSE, b"a", b"a", b"", "", b"", "", 0, 0]),
        (Rejected("no"), ["final", "dead", WHOSE, b"a", b"a", b"", ""]),
        (
            Acked((Send(Address("queue", "r"), Message("n", None)), Keep("k", b"v", 9.0))),
            ["final", "handled", WHOSE, b"a", b"a", b"", "", b"", "", 1, "r", b"n"],
        ),
    ],
    ids=lambda value: getattr(value, "reason", None) or type(value).__name__,
)
def test_each_outcome_that_is_more_than_an_acknowledgement(
    outcome: Outcome, begins: list[Any]
) -> None:
    (rich,) = said([(delivery(), outcome)], [], 1.0).rich
    assert rich[: len(begins)] == begins


def test_plain_ones_and_those_with_one_fact_travel_together_by_handler_and_queue() -> None:
    keeps = Acked((Keep("k", b"v", 9.0),))
    found = said([(delivery(), ACKED), (delivery("b"), ACKED), (delivery("c"), keeps)], [], 1.0)

    assert arguments([found]) == [
        *(0,),
        *(1, WHOSE, 2, b"a", b"b"),
        *(1, WHOSE, 1, b"c", b"k", "9.0", b"v"),
        *(0,),
    ]


@pytest.mark.parametrize("fields", [{"unique": "u"}, {"remember": 9.0}])
def test_what_holds_a_lock_or_is_remembered_is_settled_one_by_one(fields: dict[str, Any]) -> None:
    assert said([(delivery(**fields), ACKED)], [], 1.0).rich[0][:2] == ["final", "handled"]


def test_several_settles_are_one_list_of_each_kind() -> None:
    parts = [said([(delivery(id), ACKED)], [delivery("late")], 1.0) for id in "ab"]

    assert arguments(parts) == [2, WHOSE, 1, WHOSE, 1, 2, WHOSE, 1, b"a", WHOSE, 1, b"b", 0, 0]


@pytest.mark.parametrize(
    "effect",
    [
        Send(Address("topic", "orders"), Message("n", b"")),
        Send(Address("queue", "r"), Message("n" * 70_000, b"")),
        Keep("k", b"", float("nan")),
    ],
)
def test_what_no_server_can_apply_names_its_delivery(effect: Send | Keep) -> None:
    one = delivery()
    with pytest.raises(Impossible) as found:
        said([(delivery("b"), ACKED), (one, Acked((effect,)))], [], 1.0)

    assert found.value.delivery is one


def test_an_answer_is_taken_apart() -> None:
    told = [b"done", 0, [b"a"], [b"b", b"why"], [b"envelope"], [0, b"other"], b"1.5", 1, 1]

    found = answer([*told, [b"new", 2]])

    assert found.refused == {b"a"} and found.failed == {b"b": "why"}
    assert (found.envelopes, found.fields, found.wait) == ([b"envelope"], {0: b"other"}, 1.5)
    assert (found.alive, found.withheld, found.more) == (False, True, True)
    assert found.strangers == {"new": 2}
    assert answer([b"done", 1, [], [], [], [], b"", 0, 0, []]).wait is None
