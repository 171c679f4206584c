"""Which servers a URL names, and what it may not ask for."""

import pytest

from busline.core.errors import Invalid
from busline.transports.kafka import KafkaTransport
from busline.transports.kafka.url import servers


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("kafka://a", ["a:9092"]),
        ("kafka://a:1,b:2/", ["a:1", "b:2"]),
        ("kafka://[::1]:9093,10.0.0.1", ["[::1]:9093", "10.0.0.1:9092"]),
    ],
)
def test_servers_come_with_their_ports(url: str, found: list[str]) -> None:
    assert servers(url) == found


@pytest.mark.parametrize(
    "url",
    ["kafka://", "kafka:///path", "http://a", "kafka://a:port", "kafka://a,,b", "kafka://a?x=1"],
)
def test_another_form_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="expected kafka://host:9092"):
        servers(url)


def test_what_is_not_there_yet_is_refused_without_its_secrets() -> None:
    with pytest.raises(Invalid, match="not yet"):
        servers("kafka+ssl://a:9092")
    with pytest.raises(Invalid, match="not yet") as refused:
        KafkaTransport("kafka://me:secret@a:9092")
    assert "secret" not in str(refused.value) and "me" not in str(refused.value).split("'")[1]
