"""Models of one name, models in models, models that differ on the way in and out."""

import json
import subprocess
import sys
from enum import Enum
from typing import Any

from pydantic import BaseModel, Field, computed_field

from busline import App, Topic
from busline.asyncapi import document
from tests.asyncapi import twin
from tests.asyncapi.test_document import ROOT
from tests.asyncapi.torture import Order


class Size(Enum):
    SMALL = "s"


class Part(BaseModel):
    part_no: int = Field(alias="partNo")


class Machine(BaseModel):
    """Read without its weight, written with it."""

    parts: list[Part] = []
    size: Size | None = None
    spare: "Machine | None" = None

    @computed_field
    def weight(self) -> int:
        return len(self.parts)


def described(app: App) -> tuple[dict[str, Any], dict[str, Any]]:
    """The messages' payloads, and the models."""
    made = document(app)["components"]
    return {name: one["payload"] for name, one in made["messages"].items()}, made["schemas"]


def model_of(ref: str) -> str:
    return ref.rpartition("/")[2]


def test_two_models_of_one_name_are_two_schemas_each_where_it_belongs() -> None:
    app = App("a", publishes=[Topic("one", Order), Topic("other", twin.Order)])

    payloads, models = described(app)
    one, other = (
        models[model_of(payloads[f"topic_{name}.Order.sent"]["$ref"])] for name in ("one", "other")
    )

    assert "customerId" in one["properties"] and list(other["properties"]) == ["number"]


def test_their_names_depend_neither_on_the_order_of_imports_nor_on_the_file_system() -> None:
    code = (
        "import json; {}; from busline import App, Topic; from busline.asyncapi import document;"
        " print(json.dumps(document(App('a', publishes=[Topic('one', torture.Order), Topic('other',"
        " twin.Order)]))))"
    )
    imports = (
        "from tests.asyncapi import torture, twin",
        "from tests.asyncapi import twin; from tests.asyncapi import torture",
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code.format(one)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for one in imports
    )

    assert first == second and str(ROOT) not in first
    assert {"tests__asyncapi__torture__Order", "tests__asyncapi__twin__Order"} <= json.loads(first)[
        "components"
    ]["schemas"].keys()


def test_one_class_has_two_schemas_where_they_differ_with_aliases_and_itself() -> None:
    app, machines = App("a"), Topic("machines", Machine)

    @app.subscriber(machines, publish=machines)
    async def copy(machine: Machine) -> Machine:
        return machine

    payloads, models = described(app)
    read, written = (
        models[model_of(payloads[f"topic_machines.{name}"]["$ref"])]
        for name in ("Machine", "Machine.sent")
    )

    assert "weight" not in read["properties"] and "weight" in written["properties"]
    assert {"$ref": payloads["topic_machines.Machine"]["$ref"]} in read["properties"]["spare"][
        "anyOf"
    ], "itself"
    assert {"$ref": payloads["topic_machines.Machine.sent"]["$ref"]} in written["properties"][
        "spare"
    ]["anyOf"]
    for schema in (read, written):
        assert models[model_of(schema["properties"]["size"]["anyOf"][0]["$ref"])]["enum"] == ["s"]
        assert list(
            models[model_of(schema["properties"]["parts"]["items"]["$ref"])]["properties"]
        ) == ["partNo"]
