"""What is away: said once, shown as long as it lasts, tried again."""

import logging

import pytest

from busline.core.errors import Unavailable
from busline.runtime.outage import Outage

A, B = Unavailable("'redis' is away."), Unavailable("'kafka' is away.")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "busline")
    return caplog


def test_it_waits_longer_and_longer_and_says_so_once(said: pytest.LogCaptureFixture) -> None:
    away: dict[str, str] = {}
    outage = Outage("mail", away, "it receives again")
    assert [outage.again(A) for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert away == {"mail": "'redis' is away."}
    assert said.messages == [
        "mail: 'redis' is away. Nothing is lost; it goes on when that is mended."
    ]


def test_it_is_over_once_and_then_begins_anew(said: pytest.LogCaptureFixture) -> None:
    away: dict[str, str] = {}
    outage = Outage("mail", away, "it receives again")
    outage.over()
    assert said.messages == []
    outage.again(A)
    outage.over()
    outage.over()
    assert said.messages[1:] == ["mail: it receives again"] and away == {}
    assert outage.again(A) == 0.2


def test_two_that_wait_for_the_same_say_it_together(said: pytest.LogCaptureFixture) -> None:
    away: dict[str, str] = {}
    one, other = Outage("mail", away, "it receives again"), Outage("mail 0", away, "settled again")
    one.again(A)
    other.again(A)
    assert len(said.messages) == 1 and set(away) == {"mail", "mail 0"}
    one.over()
    assert len(said.messages) == 1  # the other still waits
    other.over()
    assert said.messages[1:] == ["mail 0: settled again"]


def test_another_reason_is_another_line(said: pytest.LogCaptureFixture) -> None:
    away: dict[str, str] = {}
    Outage("mail", away, "back").again(A)
    Outage("orders", away, "back").again(B)
    assert [one.partition(":")[0] for one in said.messages] == ["mail", "orders"]
