"""What the document says, and that AsyncAPI's own parser has nothing to say about it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from examples.both_worlds.app import app as photos
from examples.flights.app import app as flights
from examples.java import app as java
from examples.shop import app as shop
from examples.tenants import app as tenants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import BaseModel, create_model

from busline import App, Kafka, Redis, Topic
from busline.asyncapi import document
from busline.core.message import Delivery, Message
from busline.core.outcome import Rejected
from busline.transports.kafka.letter import letter, reference
from tests.asyncapi import twin
from tests.asyncapi.torture import Order
from tests.asyncapi.torture import app as torture

ROOT = Path(__file__).parents[2]
Parse = Callable[[Mapping[str, Any], Path], list[str]]
APPS = {
    "shop": shop,
    "java": java,
    "flights": flights,
    "tenants": tenants,
    "photos": photos,
    "torture": torture,
}


@pytest.mark.parametrize("name", APPS)
def test_the_parser_finds_nothing_to_say(parse: Parse, tmp_path: Path, name: str) -> None:
    assert parse(document(APPS[name]), tmp_path) == []


def test_on_servers_it_finds_nothing_to_say_either(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torture, "_named", (Kafka("one:9092", "two:9092"), Redis("redis://me:s3cret@host:6379/2"))
    )

    made = document(torture)

    assert parse(made, tmp_path) == []
    assert "s3cret" not in json.dumps(made)
    assert made["servers"] == {
        "streams": {"host": "one:9092,two:9092", "protocol": "kafka"},
        "jobs": {"host": "host:6379", "protocol": "redis", "pathname": "/2"},
    }
    assert made["channels"]["topic_orders.v1"]["bindings"]["kafka"] == {
        "topic": "orders.v1", "partitions": 6,
        "topicConfiguration": {"cleanup.policy": ["compact"]},
    }  # fmt: skip
    assert made["operations"]["receive_count"]["bindings"]["kafka"]["groupId"]["enum"] == [
        "team a.other"
    ]
    assert made["operations"]["receive_count"]["x-busline-dead-letters"] == [
        "orders.v1.team a.other.dead"
    ]
    letters = made["channels"]["dead_orders.v1.team_a.other.dead"]
    assert letters["address"] == "orders.v1.team a.other.dead" and letters["bindings"]["kafka"][
        "topicConfiguration"
    ] == {"cleanup.policy": ["compact"]}
    assert made["operations"]["bury_orders.v1.team_a.other.dead"]["action"] == "send"
    assert (
        "busline-reason"
        in made["components"]["messages"]["dead_orders.v1.team_a.other.dead.letter"]["headers"][
            "required"
        ]
    )
    assert (
        made["channels"]["queue_team_a.slow_lane"]["x-busline-redis"]["key"]
        == "{busline}:queue:team a.slow lane"
    )


def test_it_says_what_the_declarations_say() -> None:
    made = document(torture, version="7.1")
    plant, orders = (
        made["operations"]["receive_plant"],
        made["components"]["messages"]["topic_orders.v1.Order"],
    )

    assert made["info"] == {"title": "torture & </script>", "version": "7.1"}
    assert (
        plant["summary"] == "Plants a tree for each order."
        and "The tree has" in plant["description"]
    )
    assert (
        orders["headers"]["required"] == ["tenant"] and "x-trace" in orders["headers"]["properties"]
    )
    assert {"busline-id", "traceparent"} <= orders["headers"]["properties"].keys()
    assert (
        "tenant"
        in document(tenants)["components"]["messages"]["queue_index.index"]["headers"]["required"]
    )
    assert made["operations"]["receive_warehouse.north.pet"]["tags"] == [
        {"name": "warehouse"},
        {"name": "north"},
    ]
    assert [
        ref["$ref"].rpartition("/")[2]
        for ref in made["operations"]["receive_warehouse.north.pet"]["messages"]
    ] == ["Cat"]
    assert made["operations"]["run_send_it_now"]["reply"]["messages"][0]["$ref"].endswith(
        "/result_send_it_now"
    )
    assert "reply" not in made["operations"]["run_warehouse.nothing"]
    # two modules have one of that name
    assert sum(name.endswith("Order") for name in made["components"]["schemas"]) == 2


@pytest.mark.parametrize("name", APPS)
def test_every_example_fits_its_schema(name: str) -> None:
    made = document(APPS[name])
    messages = made["components"]["messages"]
    for message in messages.values():
        schema = message["payload"] | {"components": made["components"]}
        for one in message.get("examples", ()):
            Draft7Validator(json.loads(json.dumps(schema))).validate(one["payload"])
    assert sum("examples" in one for one in messages.values()) >= len(messages) / 2


def test_every_reference_leads_somewhere() -> None:
    made = document(torture)
    for ref in refs(made):
        found = made
        for step in ref.removeprefix("#/").split("/"):
            found = found[step]


def refs(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(ref := part.get("$ref"), str):
            yield ref
        for one in part.values():
            yield from refs(one)
    elif isinstance(part, list):
        for one in part:
            yield from refs(one)


def test_it_is_the_same_in_every_process() -> None:
    code = (
        "import json; from busline.asyncapi import document; from tests.asyncapi.torture import"
        " app; print(json.dumps(document(app)))"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    ]
    assert made[0] == made[1] == made[2]


def test_names_that_would_share_a_key_have_a_key_each() -> None:
    app, things = App("a", namespace="b"), Topic("things", twin.Order | Order)

    @app.subscriber(things, name="one_two")
    async def read(thing: twin.Order | Order) -> None: ...

    @app.subscriber(things | Topic("two", int), name="one")
    async def both(thing: object) -> None: ...

    @app.task(name="do it", queue="c.d")
    async def first() -> int:
        return 1

    @app.task(name="do_it", queue="c d")
    async def second() -> int:
        return 1

    @app.task(name="d.do it", queue="c")
    async def third() -> int:
        return 1

    made = document(app)

    assert list(made["channels"]["topic_things"]["messages"]) == ["Order", "Order_2"]
    assert sum(name.startswith("receive_") for name in made["operations"]) == 3
    assert sum(name.startswith("run_") for name in made["operations"]) == 3
    assert [
        one["address"] for name, one in made["channels"].items() if name.startswith("queue_")
    ] == ["b.c.d", "b.c d", "b.c"]
    assert len(made["components"]["messages"]) == 2 + 1 + 3 + 3


def test_a_model_that_is_read_as_it_is_written_is_one_message() -> None:
    app, orders = App("a"), Topic("orders", twin.Order)

    @app.subscriber(orders, publish=orders)
    async def again(order: twin.Order) -> twin.Order:
        return order

    made = document(app)

    assert list(made["channels"]["topic_orders"]["messages"]) == ["Order"]
    assert (
        made["operations"]["send_again"]["messages"]
        == made["operations"]["receive_again"]["messages"]
    )


def test_a_dead_letter_has_the_headers_that_the_document_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torture, "_named", (Kafka("one:9092"), Redis("redis://host:6379")))
    told = document(torture)["components"]["messages"]["dead_orders.v1.team_a.other.dead.letter"][
        "headers"
    ]
    outcome = Rejected("why", ValueError("this"))
    full = Delivery(Message("1", None, key=b"k"), "orders.v1", 1, "orders.v1/0@1", None, None)
    bare = Delivery(Message("1", b"{}"), "orders.v1", 1, "orders.v1/0@1", None, None)

    whole = letter("g", full, outcome, 1.0)
    found = {name for *_, headers in (whole, reference(whole, 1)) for name, _ in headers}
    *_, least = letter("g", bare, Rejected("why"), 1.0)
    always = {name for name, _ in least}

    assert found <= told["properties"].keys() and set(told["required"]) <= always


KINDS = st.sampled_from(
    [
        int,
        str,
        float,
        bool,
        bytes,
        int | None,
        list[int],
        dict[str, str],
        tuple[int, str],
        list[dict[str, int | None]],
    ]
)
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}[a-z]", fullmatch=True).filter(
    lambda name: not name.startswith("model_") and name not in dir(BaseModel)
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, KINDS, min_size=1, max_size=5))
def test_any_model_has_a_document_whose_examples_fit(fields: dict[str, Any]) -> None:
    declared: Any = {name: (kind, ...) for name, kind in fields.items()}
    model: Any = create_model("Made", **declared)
    app = App("any", publishes=[Topic("made", model)])

    made = document(app)

    (message,) = made["components"]["messages"].values()
    (one,) = message["examples"]
    Draft7Validator(
        json.loads(json.dumps(message["payload"] | {"components": made["components"]}))
    ).validate(one["payload"])
