"""What is wrong with a URL, a login, a server or a message, said in one form and without
secrets."""

import asyncio
import shlex
import time

import pytest

from busline.core.address import Address
from busline.core.clock import SystemClock
from busline.core.errors import ConfigError, Invalid, Unavailable
from busline.core.outcome import Acked, Keep
from busline.core.ports import Subscription
from busline.testing.clock import SimClock
from busline.testing.contract import MAIL, ORDERS, Recorder, message
from busline.transports.redis import RedisTransport
from tests.servers.redis import Server, free_port, running

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rediss://h:1", "'rediss://': expected redis:// or unix://, got TLS. Not yet"),
        ("http://h", "'http://': expected redis://"),
        ("localhost:6379", "'the URL': expected redis://"),
        (
            f"redis://u:{SECRET}@x@h",
            "'redis://...@h': expected a URL without a raw # or @ in its password",
        ),
        (f"redis://u:{SECRET}#x@h", "without a raw # or @"),
        (
            f"redis://u:{SECRET}@h/x",
            "'redis://h/x': expected a database's number after the host, got 'x'",
        ),
        (f"redis://u:{SECRET}@h:x", "got a port that is no number"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secret(url: str, said: str) -> None:
    with pytest.raises(Invalid) as found:
        RedisTransport(url)
    assert said in str(found.value)
    assert SECRET not in str(found.value)


def test_a_url_is_taken_apart() -> None:
    given = RedisTransport("redis://us%40er:p%23w@host:7/3", namespace="shop")
    place = given.session.place
    assert (place.user, place.password, place.host, place.port, place.database) == (
        "us@er",
        "p#w",
        "host",
        7,
        3,
    )
    assert given.session.prefix == "{shop}:"
    assert repr(given) == "<RedisTransport redis://host:7/3 {shop}:>" and "p#w" not in repr(place)
    assert RedisTransport("unix:///run/r.sock").session.place.path == "/run/r.sock"
    assert str(RedisTransport("redis://h").session.place) == "redis://h:6379"
    with pytest.raises(Invalid, match="printable characters without braces"):
        RedisTransport("redis://h", namespace="{x}")


async def fails(url: str) -> str:
    with pytest.raises((ConfigError, Unavailable)) as found:
        async with RedisTransport(url):
            pass
    assert SECRET not in str(found.value)
    return f"{type(found.value).__name__}: {found.value}"


@pytest.mark.server
async def test_a_login_that_is_missing_or_wrong_says_so() -> None:
    with running(requirepass=SECRET) as server:
        assert (
            "ConfigError" in (said := await fails(server.url))
            and "a login that the server accepts" in said
        )
        assert "a login that the server accepts" in await fails(
            f"redis://:not-{SECRET}@127.0.0.1:{server.port}"
        )
        async with RedisTransport(f"redis://:{SECRET}@127.0.0.1:{server.port}") as transport:
            assert await transport.publish(MAIL, [message()]) == {}


async def test_a_login_that_may_not_touch_the_keys_says_so(redis: Server) -> None:
    redis.say("ACL", "SETUSER", "guest", "on", f">{SECRET}", "+@all", "~other:*")
    try:
        assert "ConfigError" in await fails(f"redis://guest:{SECRET}@127.0.0.1:{redis.port}")
    finally:
        redis.say("ACL", "DELUSER", "guest")


async def test_a_database_that_is_not_there_says_so(redis: Server) -> None:
    assert (
        "ConfigError" in (said := await fails(f"{redis.url}/99"))
        and "a database that the server has" in said
    )


async def test_nobody_there_is_unavailable_at_once() -> None:
    begun = time.monotonic()
    assert (
        "Unavailable" in (said := await fails(f"redis://127.0.0.1:{free_port()}"))
        and "expected an answer" in said
    )
    assert time.monotonic() - begun < 2


@pytest.mark.server
async def test_a_server_without_what_is_needed_says_so() -> None:
    with running(rename_command="HELLO NOTHELLO") as server:
        assert "ConfigError" in (said := await fails(server.url)) and "Redis 6.2 or newer" in said


async def test_records_are_refused(redis: Server) -> None:
    async with RedisTransport(redis.url) as transport:
        with pytest.raises(Invalid, match="'orders': expected a queue, got a topic"):
            await transport.publish(ORDERS, [message()])
        with pytest.raises(Invalid, match="'g': expected queues, got a group"):
            async with transport.subscribe(Subscription((ORDERS,), "g"), Recorder(SimClock())):
                pass


async def test_a_send_that_is_not_confirmed_within_its_time_is_unavailable(
    redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busline.transports.redis.producer.PATIENCE", 0.3)
    with running() as server:
        async with RedisTransport(server.url) as transport:
            server.kill()
            with pytest.raises(Unavailable):
                await transport.publish(MAIL, [message()])
            server.start()
            async with asyncio.timeout(5):
                assert await transport.publish(MAIL, [message()]) == {}


async def test_a_name_that_does_not_fit_an_envelope_is_refused(redis: Server) -> None:
    async with RedisTransport(redis.url) as transport:
        with pytest.raises(Invalid, match="at most 65535 bytes"):
            await transport.publish(Address("queue", "q" * 70_000), [message()])


async def test_a_send_is_told_when_its_engine_is_closed(redis: Server) -> None:
    with running() as server:
        async with RedisTransport(server.url) as transport:
            server.kill()
            sending = [
                asyncio.ensure_future(transport.publish(MAIL, [message()])) for _ in range(3)
            ]
            await asyncio.sleep(0.05)
        for one in sending:
            with pytest.raises(Unavailable, match="closed before it confirmed"):
                await one


async def test_a_login_without_scripts_is_told_the_line_that_allows_them(redis: Server) -> None:
    redis.say(
        "ACL",
        "SETUSER",
        "guest",
        "on",
        f">{SECRET}",
        "~*",
        "&*",
        "+@all",
        "-eval",
        "-evalsha",
        "-info",
        "-config",
    )
    url = f"redis://guest:{SECRET}@127.0.0.1:{redis.port}"
    try:
        said = await fails(url)
        assert (
            "expected a login that may use the scripts, keys and channels of this namespace" in said
        )
        line = said.partition("Type at the server: ")[2].rstrip(".")
        redis.say("ACL", "SETUSER", "guest", "reset", "on", f">{SECRET}")
        redis.say(*shlex.split(line))
        await works(url)
    finally:
        redis.say("ACL", "DELUSER", "guest")


async def works(url: str) -> None:
    """Without INFO and CONFIG, as far as a job needs."""
    async with (
        RedisTransport(url) as transport,
        transport.subscribe(Subscription((MAIL,)), Recorder(SystemClock())) as receiver,
    ):
        waiting = asyncio.ensure_future(transport.store.wait("k", None))
        await transport.publish(MAIL, [message()])
        (got,) = await receiver.receive(1)
        assert (await receiver.settle([(got, Acked((Keep("k", b"v", 60),)))])).refused == []
        assert await waiting == b"v"


@pytest.mark.server
async def test_a_server_that_throws_keys_away_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(maxmemory="50mb", maxmemory_policy="allkeys-lru") as server:
        await works(server.url)
    assert "maxmemory-policy allkeys-lru" in caplog.text


async def test_a_login_without_channels_is_told_what_it_lacks(redis: Server) -> None:
    redis.say("ACL", "SETUSER", "guest", "on", f">{SECRET}", "~*", "resetchannels", "+@all")
    try:
        said = await fails(f"redis://guest:{SECRET}@127.0.0.1:{redis.port}")
        assert (
            "channel" in said and "ACL SETUSER guest" in said and "Redis 6.2 or newer" not in said
        )
    finally:
        redis.say("ACL", "DELUSER", "guest")


async def test_a_login_that_may_not_ask_for_connections_keeps_its_lease(redis: Server) -> None:
    redis.say(
        "ACL",
        "SETUSER",
        "guest",
        "on",
        f">{SECRET}",
        "~*",
        "&*",
        "+@all",
        "-client",
        "+client|setname",
    )
    try:
        async with RedisTransport(f"redis://guest:{SECRET}@127.0.0.1:{redis.port}") as transport:
            async with asyncio.timeout(10):
                while transport.session.lease.connection != "-":
                    await asyncio.sleep(0.01)
    finally:
        redis.say("ACL", "DELUSER", "guest")
