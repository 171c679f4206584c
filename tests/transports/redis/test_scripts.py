"""Each part of a worker's step, run by itself in a real server: what it takes, what it leaves."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from busline.core.message import Message
from busline.transports.redis.envelope import pack, unpack, unpack_letter
from busline.transports.redis.link import joined
from tests.servers.redis import Server

P = "{busline}:"
NOW = 1000.0


class Lua:
    """Runs parts, and a text behind them that calls one."""

    def __init__(self, port: int) -> None:
        self.say: Any = Redis(port=port, protocol=2)  # annotated in part

    def run(self, *parts: str, text: str, arguments: tuple[Any, ...] = ()) -> Any:
        return self.say.eval(joined(*parts, text=text).text, 1, P, *arguments)

    def waiting(self, kind: str = "queue:q") -> list[str]:
        return [unpack(one).message.id for one in self.say.lrange(P + kind, 0, -1)]


@pytest.fixture
def lua(redis: Server) -> Iterator[Lua]:
    lua = Lua(redis.port)
    yield lua
    lua.say.close()


def job(id: str, body: bytes = b"{}", task: str = "t", attempts: int = 0, deaths: int = 0) -> bytes:
    envelope = pack(Message(id, body, task=task), "q", attempts)
    return envelope[:4] + bytes([deaths]) + envelope[5:]


# --- settle ----------------------------------------------------------------------------------


def settled(lua: Lua, *arguments: Any, alive: bool = True) -> Any:
    text = (
        f"local found = settle(P .. 'hand:W', {str(alive).lower()}, {NOW}, 0, 1)\n"
        "local queues = {}\n"
        "for queue in pairs(found.touched) do queues[#queues + 1] = queue end\n"
        "return {found.refused, found.failed, queues}"
    )
    return lua.run("settle", text=text, arguments=arguments)


def holding(lua: Lua, *ids: str, **fields: Any) -> None:
    lua.say.hset(P + "hand:W", mapping={id: job(id, **fields) for id in ids})


def test_plain_acknowledgements_leave_the_hand_and_are_counted(lua: Lua) -> None:
    holding(lua, "a", "b", "c")

    assert settled(lua, 0, 1, "t\nq", 2, "a", "b", 0, 0) == [[], [], []]

    assert lua.say.hkeys(P + "hand:W") == [b"c"]
    assert lua.say.hgetall(P + "counts") == {b"handled t\nq": b"2"}


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 1, "t\nq", 2, "a", "gone", 0, 0),
        (0, 0, 1, "t\nq", 2, "a", "k1", "9", "v", "gone", "k2", "9", "v", 0),
        (0, 0, 0, 2, "released", "", "t\nq", "a", "retried", "retried", "t\nq", "gone", "5", 1),
    ],
)
def test_of_a_worker_that_is_dead_only_what_is_still_there_is_settled(
    lua: Lua, arguments: tuple[Any, ...]
) -> None:
    holding(lua, "a")

    assert settled(lua, *arguments, alive=False)[0] == [b"gone"]

    assert lua.say.hkeys(P + "hand:W") == [] and not lua.say.exists(P + "fact:k2", P + "later")
    assert lua.say.hget(P + "counts", "refused t\nq") == b"1"


def test_what_is_released_goes_back_in_front_in_its_order(lua: Lua) -> None:
    lua.say.rpush(P + "queue:q", job("last"))
    holding(lua, "a", "b")

    rest = [one for id in ("a", "b") for one in ("released", "", "t\nq", id)]
    assert settled(lua, 0, 0, 0, 2, *rest) == [[], [], [b"q"]]

    assert lua.waiting() == ["a", "b", "last"]


def test_what_failed_waits_for_its_time_with_one_attempt_more(lua: Lua) -> None:
    holding(lua, "a", attempts=2)

    assert settled(lua, 0, 0, 0, 1, "retried", "retried", "t\nq", "a", "5", 1)[0] == []

    assert lua.say.zrange(P + "retrying:q", 0, -1, withscores=True) == [(b"a", NOW + 5)]
    assert unpack(lua.say.hget(P + "later", "a")).attempts == 3


def final(id: str, *sends: Any, letter: bytes = b"", unique: str = "") -> tuple[Any, ...]:
    return ("final", "handled", "t\nq", id, id, unique, "9", letter, "spare", *sends)


def test_a_final_outcome_comes_with_its_sends_facts_and_letter_in_one_step(lua: Lua) -> None:
    holding(lua, "a")
    lua.say.hset(P + "locks", "u", "a")

    sends = 1, "other", "new", "", "", "", job("new"), 1, "k", "60", "v"
    assert settled(lua, 0, 0, 0, 1, *final("a", *sends, letter=b"letter", unique="u"))[2] == [
        b"other"
    ]

    assert lua.waiting("queue:other") == ["new"]
    assert lua.say.get(P + "fact:k") == b"1060 v"
    assert lua.say.hget(P + "dead", "a") == b"letter"
    assert not lua.say.exists(P + "locks", P + "hand:W")
    assert lua.say.zscore(P + "known", "a") == NOW + 9


def test_what_can_never_be_sent_leaves_the_job_in_hand_and_settles_the_others(lua: Lua) -> None:
    lua.say.set(P + "queue:broken", "text")
    holding(lua, "a", "b")
    sends = 1, "broken", "new", "", "", "", job("new"), 0

    found = settled(lua, 0, 1, "t\nq", 1, "b", 0, 1, *final("a", *sends))

    assert found[1] == [b"a", b"the key of the queue broken holds a string"]
    assert lua.say.hkeys(P + "hand:W") == [b"a"] and lua.say.get(P + "queue:broken") == b"text"


# --- promote ---------------------------------------------------------------------------------


def test_what_is_due_joins_those_that_wait_and_the_rest_stays(lua: Lua) -> None:
    lua.say.hset(P + "later", mapping={id: job(id) for id in ("late", "due", "again")})
    lua.say.zadd(P + "delayed:q", {"due": NOW, "late": NOW + 1, "gone": NOW - 1})
    lua.say.zadd(P + "retrying:q", {"again": NOW})

    lua.run("promote", text=f"promote({{'q', 'empty'}}, {NOW})")

    assert lua.waiting() == ["due", "again"]
    assert lua.say.zrange(P + "delayed:q", 0, -1) == [b"late"] == lua.say.hkeys(P + "later")


def test_no_more_bytes_are_promoted_at_once_than_a_few(lua: Lua) -> None:
    large = b"x" * 2**21
    lua.say.hset(P + "later", mapping={f"{n}": job(f"{n}", large) for n in range(4)})
    lua.say.zadd(P + "delayed:q", {f"{n}": n for n in range(4)})

    lua.run("promote", text=f"promote({{'q'}}, {NOW})")

    assert lua.waiting() == ["0", "1"]


# --- hand_out --------------------------------------------------------------------------------


def handed(lua: Lua, wants: int = 10, **changes: Any) -> tuple[dict[str, Any], bool]:
    """What `to` says afterwards, without the jobs, and whether some are withheld."""
    to = {"worker": "W", "hand": P + "hand:W", "seq": 7, "wants": wants, "room": 1000}
    to |= {"patience": 900, "lonely": True, "alone": False, "now": NOW, **changes}
    text = (
        "local to = cjson.decode(ARGV[1])\n"
        "redis.call('HSET', to.hand, TURN, 7)\n"
        "local withheld = hand_out(to, {'q', 'r'})\n"
        "to.jobs, to.shapes = nil, nil\n"
        "local renamed = {}\n"
        "for n in pairs(to.renamed) do renamed[#renamed + 1] = to.names[n] end\n"
        "to.renamed = renamed\n"
        "return {cjson.encode(to), withheld and 1 or 0}"
    )
    told, withheld = lua.run("hand_out", text=text, arguments=(json.dumps(to),))
    return json.loads(told), bool(withheld)


def names(found: dict[str, Any]) -> list[str]:
    return list(found["names"])  # an empty list of Lua's is an object


def test_the_oldest_are_handed_out_queue_by_queue_as_many_as_are_wanted(lua: Lua) -> None:
    lua.say.rpush(P + "queue:q", job("a"), job("b"))
    lua.say.rpush(P + "queue:r", job("c"), job("d"))

    found, withheld = handed(lua, wants=3)

    assert names(found) == ["a", "b", "c"] and not withheld
    assert lua.waiting("queue:r") == ["d"]
    assert lua.say.hget(P + "hand:W", "b") == job("b")


@pytest.mark.parametrize(("sizes", "taken"), [((400, 400, 400), 2), ((5000, 1), 1)])
def test_no_more_bytes_than_there_is_room_for_but_one_job_at_least(
    lua: Lua, sizes: tuple[int, ...], taken: int
) -> None:
    lua.say.rpush(P + "queue:q", *[job(f"{n}", b"x" * size) for n, size in enumerate(sizes)])

    assert len(names(handed(lua)[0])) == taken

    assert lua.waiting() == [f"{n}" for n in range(taken, len(sizes))]


def test_an_id_that_is_in_hand_already_gets_another_name(lua: Lua) -> None:
    holding(lua, "a")
    lua.say.rpush(P + "queue:q", job("a"), job("b"), job("b"))

    found, _ = handed(lua)

    assert names(found) == ["a\0007.1", "b", "b\0007.3"]
    assert sorted(found["renamed"]) == ["a\0007.1", "b\0007.3"]
    assert lua.say.hlen(P + "hand:W") == 5


def test_what_it_does_not_know_waits_aside_and_comes_to_one_that_does(lua: Lua) -> None:
    lua.say.sadd(P + "knows:W", "\0", "old")
    lua.say.rpush(P + "queue:q", job("a", task="new"), job("b", task="old"), job("c", task="new"))

    found, _ = handed(lua)

    assert names(found) == ["b"] and found["strangers"] == {"q": {"new": 2}}
    lua.say.sadd(P + "knows:W", "new")
    assert names(handed(lua)[0]) == ["a", "c"] and not lua.say.exists(P + "unknown:q")


def test_what_nobody_has_known_for_too_long_is_handed_out_all_the_same(lua: Lua) -> None:
    lua.say.sadd(P + "knows:W", "old")
    lua.say.rpush(P + "queue:q", job("a", task="new"))
    assert names(handed(lua)[0]) == []

    assert names(handed(lua, now=NOW + 899)[0]) == []
    assert names(handed(lua, now=NOW + 900)[0]) == ["a"]


def test_what_ended_two_workers_is_handed_out_alone(lua: Lua) -> None:
    lua.say.rpush(P + "suspect:q", job("s", deaths=2))
    lua.say.rpush(P + "queue:q", job("a"))

    assert handed(lua, lonely=False)[1] and lua.waiting("suspect:q") == ["s"]
    found, withheld = handed(lua)

    assert names(found) == ["s"] and withheld
    assert lua.say.hget(P + "hand:W", "\0alone") == b"s" and lua.waiting() == ["a"]
    assert handed(lua, alone=True) == (handed(lua, alone=True)[0], True) and lua.waiting() == ["a"]


def test_bytes_that_are_no_envelope_are_dead_and_those_of_a_newer_version_wait(lua: Lua) -> None:
    newer = b"\x02" + job("n")[1:]
    lua.say.rpush(P + "queue:q", b"junk", newer, job("a"))

    assert names(handed(lua)[0]) == ["a"]

    (letter,) = lua.say.hvals(P + "dead")
    assert unpack_letter("x", letter).raw == b"junk"
    assert lua.say.hvals(P + "later") == [newer]
    assert lua.say.zrange(P + "retrying:q", 0, -1, withscores=True)[0][1] == NOW + 1


# --- keep_time -------------------------------------------------------------------------------


def due(lua: Lua, now: float = NOW) -> float | None:
    text = f"return tostring(keep_time('W', {{'q', 'r'}}, {now}, 900))"
    told = lua.run("keep_time", text=text).decode()
    return None if told == "nil" else float(told)


def test_a_worker_looks_again_when_the_first_of_its_queues_is_due(lua: Lua) -> None:
    assert due(lua) is None
    lua.say.zadd(P + "unknown:q", {"t": NOW - 800})
    assert due(lua) == NOW + 100
    lua.say.zadd(P + "delayed:r", {"a": NOW + 50})
    lua.say.zadd(P + "retrying:q", {"b": NOW + 70})
    assert due(lua) == NOW + 50
    assert lua.say.hget(P + "keeper:q", "worker") == b"W"


@pytest.mark.parametrize(
    ("lives", "at", "kept"), [(True, 20, False), (True, 60, True), (False, 20, True)]
)
def test_another_keeps_the_time_as_long_as_it_lives_and_is_early_enough(
    lua: Lua, lives: bool, at: int, kept: bool
) -> None:
    lua.say.zadd(P + "delayed:q", {"a": NOW + 50})
    lua.say.hset(P + "keeper:q", mapping={"worker": "other", "due": NOW + at})
    if lives:
        lua.say.zadd(P + "live", {"other": 1})

    assert due(lua) == (NOW + 50 if kept else None)


def test_ids_whose_time_is_over_are_forgotten(lua: Lua) -> None:
    lua.say.zadd(P + "known", {"over": NOW, "kept": NOW + 1, "living": 1e15})

    due(lua)

    assert lua.say.zrange(P + "known", 0, -1) == [b"kept", b"living"]
