"""Real servers: started when a test first asks, ended with the session. `--embedded` leaves out the tests that need one."""

from collections.abc import Iterator

import pytest

from tests.servers import Servers
from tests.servers.kafka import Kafka
from tests.servers.redis import redis, shared

__all__ = ["redis", "shared"]
SERVERS = {"kafka", "redis"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--embedded", action="store_true", help="only the tests that need no server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--embedded"):
        left_out = [one for one in items if one.get_closest_marker("server") or SERVERS & set(getattr(one, "fixturenames", ()))]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [one for one in items if one not in left_out]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Servers:
    return Servers(request.getfixturevalue)
