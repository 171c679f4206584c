"""What goes out comes back equal, or is refused: by its type where that tells, else at the call,
with the path."""

from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
)
from typing_extensions import TypedDict

from busline import Invalid
from busline.core.codec import BYTES, TEXT, Codec, codec_of
from busline.core.two_way import differences

T = TypeVar("T")


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Plain(Enum):
    ONE = 1


class Base(BaseModel):
    id: str


class Paid(Base):
    cents: int = 0


class Held(BaseModel):
    inside: list[Base]


class Secret(BaseModel):
    user: str
    password: SecretStr


class Told(Secret):
    @field_serializer("password", when_used="json")
    def told(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Left(BaseModel):
    note: str = Field("", exclude=True)


class Text(BaseModel):
    rows: Json[list[int]]


class Price(BaseModel):
    model_config = ConfigDict(extra="forbid")
    net: int

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's users write it
    @property
    def gross(self) -> int:
        return self.net * 2


class Lines(BaseModel):
    lines: list[Price]


class OneWay(BaseModel):
    at: int

    @field_serializer("at")
    def hidden(self, value: int) -> str:
        return "?"


class TwoNames(BaseModel):
    one: int = Field(validation_alias="in", serialization_alias="out")


class Grows(BaseModel):
    n: Annotated[int, AfterValidator(lambda n: n + 1)]


class Page(BaseModel, Generic[T]):
    items: list[T]


class Tree(BaseModel):
    at: datetime
    children: list["Tree"] = []


class Pair(NamedTuple):
    left: int
    right: str


class Typed(TypedDict):
    a: int
    b: NotRequired[bytes]


@dataclass
class Point:
    x: int
    tag: bytes = b""


NEVER: list[tuple[Any, str]] = [
    (Left, "'note' at t: expected a field that is written, got exclude=True"),
    (Text, "'rows' at t: expected a value that is written as it is read, got Json"),
    (
        Price,
        "'gross' at t: expected fields that can be read as they are written, got a computed field",
    ),
    (Lines, "'lines.gross' at t: "),
    (Price | int, "'gross' at t: "),
    (TwoNames, "'one' at t: expected a field that reads the name it is written under"),
    (list[TwoNames], "'one' at t: "),
    (
        dict[tuple[int, int], int],
        "'t': expected keys that are one text each in JSON, got keys of the kind 'tuple'",
    ),
    (
        dict[int | None, int],
        "'t': expected keys that are one text each in JSON, got keys of the kind 'nullable'",
    ),
    (
        dict[Plain, int],
        "'t': expected keys that are one text each in JSON, got keys of the kind 'enum'",
    ),
]


@pytest.mark.parametrize(("model", "said"), NEVER)
def test_what_never_comes_back_is_refused_by_its_type(model: Any, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        Codec(model, "t")
    assert str(caught.value).startswith(said)
    assert Codec(model, "t", reads=True).decode is not None  # others may have written it


def changed() -> Base:
    base = Base(id="a")
    base.id = 3  # type: ignore[assignment]  # what nobody checks
    return base


AT_THE_CALL: list[tuple[Any, Any, str]] = [
    (
        Secret,
        Secret(user="a", password=SecretStr("b")),
        "'password' at t: expected a value that can be written, got a secret",
    ),
    (SecretStr, SecretStr("b"), "'t': expected a value that can be written, got a secret"),
    (
        Base,
        Paid(id="a", cents=7),
        "'t': expected a value that comes back as it is sent, got a Paid that comes back as a Base",
    ),
    (
        Held,
        Held(inside=[Paid(id="a")]),
        "'inside.0' at t: expected a value that comes back as it is sent",
    ),
    (Grows, Grows(n=1), "'n' at t: expected a value that comes back as it is sent"),
    (OneWay, OneWay(at=1), "'t': expected a value that can be read as it is written, got at: "),
    (
        date | str,
        "2020-01-01",
        "'t': expected a value that comes back as it is sent, got a str that comes back as a date",
    ),
    (
        Any,
        (1, 2),
        (
            "'t': expected a value that comes back as it is sent, got a tuple that comes back as a"
            " list"
        ),
    ),
    (Base, changed(), "'t': expected a value of its type"),
]


@pytest.mark.parametrize(("model", "value", "said"), AT_THE_CALL)
def test_a_value_that_would_not_come_back_is_refused_at_the_call(
    model: Any, value: Any, said: str
) -> None:
    with pytest.raises(Invalid) as caught:
        Codec(model, "t").encode(value)
    assert str(caught.value).startswith(said)


COMES: list[tuple[Any, Any]] = [
    (Told, Told(user="a", password=SecretStr("b"))),
    (Base | Paid, Paid(id="a", cents=7)),
    (Page[bytes], Page[bytes](items=[b"\xff\x00"])),
    (Tree, Tree(at=datetime.now(UTC), children=[Tree(at=datetime.now(UTC))])),
    (Pair, Pair(1, "a")),
    (Typed, {"a": 1, "b": b"\xfe"}),
    (Point, Point(1, b"\x80")),
    (dict[Colour, int], {Colour.RED: 1}),
    (dict[Size, int], {Size.LARGE: 1}),
    (dict[bytes, int], {b"\xff": 1}),
    (Literal["a", 1], 1),
    (RootModel[list[int]], RootModel[list[int]]([1])),
    (Plain, Plain.ONE),
    (Any, {"a": [1, None]}),
]


@pytest.mark.parametrize(("model", "value"), COMES)
def test_other_values_come_back_equal(model: Any, value: Any) -> None:
    codec = Codec(model, "t")
    assert_equal(codec.decode(codec.encode(value)), value)


def assert_equal(come: Any, sent: Any) -> None:
    assert type(come) is type(sent) and not list(differences(sent, come)), (sent, come)


# --- drawn types -----------------------------------------------------------------------------

SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (str, st.text()),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bytes, st.binary()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=st.one_of(st.none(), st.timezones()))),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Colour, st.sampled_from(Colour)),
    (Size, st.sampled_from(Size)),
    (Plain, st.sampled_from(Plain)),
    (SecretStr, st.text().map(SecretStr)),
    (Annotated[int, Field(ge=0)], st.integers(0)),
    (Any, st.one_of(st.text(), st.tuples(st.integers()))),
]
Drawn = tuple[Any, st.SearchStrategy[Any]]


def of(outer: Any, *inner: Any) -> Any:
    """`outer[inner]`, of types that are known at run time only."""
    return outer[inner if len(inner) > 1 else inner[0]]


def containers(inner: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    pairs = st.tuples(inner, inner)
    lists = inner.map(lambda one: (of(list, one[0]), st.lists(one[1], max_size=3)))
    tuples = pairs.map(
        lambda two: (of(tuple, two[0][0], two[1][0]), st.tuples(two[0][1], two[1][1]))
    )
    unions = pairs.map(
        lambda two: (two[0][0] | two[1][0] | None, st.one_of(two[0][1], two[1][1], st.none()))
    )
    maps = inner.map(
        lambda one: (
            of(dict, str, one[0]),
            st.dictionaries(st.text(max_size=3), one[1], max_size=3),
        )
    )
    return st.one_of(
        lists, tuples, unions, maps, st.lists(inner, min_size=1, max_size=3).flatmap(structures)
    )


def structures(parts: list[Drawn]) -> st.SearchStrategy[Drawn]:
    names = [f"f{n}" for n in range(len(parts))]
    values = st.fixed_dictionaries({name: part[1] for name, part in zip(names, parts, strict=True)})
    kinds = {name: part[0] for name, part in zip(names, parts, strict=True)}
    fields: Any = {name: (kind, Field(alias=f"a-{name}")) for name, kind in kinds.items()}
    model, plain = (
        create_model("Model", __config__=ConfigDict(populate_by_name=True), **fields),
        make_dataclass("Plain", list(kinds.items())),
    )
    made: list[Callable[[dict[str, Any]], Any]] = [
        lambda given: model.model_construct(**given),
        lambda given: plain(**given),
    ]
    return st.sampled_from([(model, values.map(made[0])), (plain, values.map(made[1]))])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_type_is_drawn_values_come_back_equal_or_are_refused(data: st.DataObject) -> None:
    kind, values = data.draw(st.recursive(st.sampled_from(SCALARS), containers, max_leaves=5))
    try:
        codec = Codec(kind, "t")
    except Invalid:
        return
    value = data.draw(values)
    try:
        body = codec.encode(value)
    except Invalid:
        return
    assert_equal(codec.decode(body), codec.adapter.validator.validate_python(value))


@pytest.mark.parametrize("left", [{"cents": "7"}, {"id": 3}, {"id": 1, "cents": "one"}])
def test_a_changed_value_is_refused_behind_any_number_of_good_ones(left: dict[str, Any]) -> None:
    codec = Codec(Paid, "t")
    for n in range(3):
        codec.encode(Paid(id="one", cents=n))
    value = Paid(id="two", cents=4)
    for name, one in left.items():
        setattr(value, name, one)

    for _ in range(2):
        with pytest.raises(Invalid, match="'t': expected a value of its type"):
            codec.encode(value)
    assert codec.encode(Paid(id="three")) == b'{"id":"three","cents":0}'


# --- bodies that are no JSON -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "value", "body", "mime"),
    [(bytes, b"\xff[", b"\xff[", BYTES), (str, "hé", "hé".encode(), TEXT)],
)
def test_bytes_and_text_as_a_whole_type_travel_as_they_are(
    model: Any, value: Any, body: bytes, mime: str
) -> None:
    codec = codec_of(model, "t")
    assert (codec.encode(value), codec.decode(body), codec.mime) == (body, value, mime)
    codec.check(b"[" * 1000)


def test_bounds_hold_for_them_too() -> None:
    codec = codec_of(Annotated[str, Field(max_length=2)], "t")
    with pytest.raises(Invalid, match="at most 2 characters"):
        codec.encode("abc")
    with pytest.raises(Invalid, match="'t': expected a body of at most"):
        codec_of(str, "t").encode("ab" * 1_000_000)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int


@pytest.mark.parametrize("extra", [(1, 2), {1: 2}, float("nan")])
def test_what_an_open_model_holds_beside_its_fields_is_read_back_as_well(extra: object) -> None:
    codec = Codec(Open, "orders")
    fits = Open.model_validate({"id": 1, "more": [1]})
    assert codec.decode(codec.encode(fits)) == fits
    with pytest.raises(Invalid, match="more"):
        codec.encode(Open.model_validate({"id": 1, "more": extra}))


def test_a_field_that_was_emptied_or_taken_out_of_a_good_value_is_refused() -> None:
    codec = Codec(Named, "orders")
    codec.encode(Named(name="a", size=1))
    emptied, taken = Named(name="a", size=1), Named(name="a", size=1)
    emptied.name = None  # type: ignore[assignment]  # nobody looks at it again
    del taken.size
    for one in (emptied, taken):
        with pytest.raises(Invalid):
            codec.encode(one)


class Named(BaseModel):
    name: str
    size: int = 5


@pytest.mark.parametrize("model", [Any, Any | Colour | None])
def test_an_enum_that_would_come_back_as_its_text_is_refused(model: Any) -> None:
    with pytest.raises(Invalid, match="a Colour that comes back as a str"):
        Codec(model, "orders").encode(Colour.RED)
