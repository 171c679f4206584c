"""Real servers: started when a test first asks, ended with the session. `--embedded` leaves out the
tests that need one. What is slow comes first, so that no process has it left when the others are
done."""

import signal
from collections.abc import Iterator

import pytest

from tests.servers import Servers, started
from tests.servers.kafka import Kafka
from tests.servers.redis import redis, shared

__all__ = ["redis", "shared"]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs aside
    signal.signal(signal.SIGINT, signal.default_int_handler)
SERVERS = {"browser", "kafka", "redis", "shared"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--embedded", action="store_true", help="only the tests that need no server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for one in items:
        if SERVERS & set(getattr(one, "fixturenames", ())):
            one.add_marker("server")
    if config.getoption("--embedded"):
        left_out = [one for one in items if one.get_closest_marker("server")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [one for one in items if one not in left_out]
    items.sort(key=lambda one: one.get_closest_marker("slow") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whatever starts a server asks for this, so that a test that lacks the mark fails on every
    machine."""
    started.allowed = item.get_closest_marker("server") is not None


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Servers:
    return Servers(request.getfixturevalue)
