"""A clock that tests move."""

import pytest

from busline.testing.clock import SimClock


@pytest.fixture
def clock() -> SimClock:
    return SimClock()
