"""What older builds left in a namespace is handled; keys of a newer one are left alone.

`layouts/*.txt` are the commands that make such a namespace again, as a killed process left it: by
the first build that wrote this layout, and by later ones that had added keys to it."""

import ast
from pathlib import Path

import pytest

from busline.core.errors import ConfigError
from busline.testing.contract import MAIL, ack, message, receive
from busline.transports.redis import RedisTransport
from tests.servers.redis import Server
from tests.transports.redis.conftest import Engines

OLDER = sorted((Path(__file__).parent / "layouts").glob("*.txt"))
SAID = (
    r"'\{busline\}:layout': expected layout 1, got layout 2\. A newer busline has written these"
    " keys: upgrade, or choose another namespace"
)


@pytest.mark.parametrize("text", OLDER, ids=lambda path: path.stem)
async def test_what_an_older_build_left_is_handled_once(
    engines: Engines, redis: Server, text: Path
) -> None:
    for line in text.read_text().splitlines():
        redis.say(*ast.literal_eval(line))
    desk = await engines.desk(lease=1.0)
    inspector, store = desk.transport.inspector, desk.transport.store

    assert await desk.transport.publish(MAIL, [message(id="done", remember=9.0)]) == {0: "done"}
    assert await desk.transport.publish(MAIL, [message(unique="v")]) == {0: "locked"}
    assert await inspector.redrive(["dead"]) == (1, ())
    receiver = await desk.take(tasks=frozenset({"send", "new"}))
    jobs = ["dead", "delayed", "locked", "retrying", "running", "waiting"]
    jobs += ["aside"] if text.stem == "1-later" else []
    found = await receive(receiver, len(jobs))

    assert sorted(one.message.id for one in found) == sorted(jobs)
    assert await ack(receiver, found) == []
    assert [one.id for one in await inspector.dead()] == ["redriven"]
    assert await store.get(["fact", "result/done"]) == [b"kept", b"+1"]
    assert {one[:4] for one in (await inspector.depth()).values()} == {(0, 0, 0, 0)}
    counts = (await inspector.counts()).values()
    assert sum(one.handled for one in counts) == 1 + len(jobs)


async def test_keys_of_a_newer_layout_are_refused_by_name_and_left_alone(redis: Server) -> None:
    redis.say("SET", "{busline}:layout", "2")

    with pytest.raises(ConfigError, match=SAID):
        async with RedisTransport(redis.url):
            pass

    assert redis.say("DBSIZE") == b":1\r\n"


async def test_a_process_writes_nothing_into_keys_that_a_newer_one_has_changed(
    engines: Engines, redis: Server
) -> None:
    desk = await engines.desk()
    receiver = await desk.take()
    await desk.transport.publish(MAIL, [message(id="a")])
    held = await receive(receiver, 1)
    redis.say("SET", "{busline}:layout", "2")

    for ask in (desk.transport.publish(MAIL, [message()]), ack(receiver, held)):
        with pytest.raises(ConfigError, match=SAID):
            await ask

    assert redis.say("LLEN", "{busline}:queue:mail") == b":0\r\n"
    redis.say("SET", "{busline}:layout", "1")
    assert await ack(receiver, held) == []


async def test_a_namespace_that_was_emptied_has_its_layout_again(
    engines: Engines, redis: Server
) -> None:
    transport = await engines.open()
    redis.say("FLUSHALL")

    await transport.publish(MAIL, [message()])

    assert redis.say("GET", "{busline}:layout") == b"$1\r\n1\r\n"
