"""What a function's declaration is checked for when its App starts: each check raises Invalid,
naming the function's place."""

import inspect
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, get_args, get_origin

from busline.core.errors import Invalid, wrong
from busline.core.fits import UNIONS, bare, fits, reads
from busline.core.function import Kind, kind_of
from busline.core.markers import asked
from busline.core.message import header_name
from busline.core.policy import LANE_LIMIT, Retry
from busline.core.signature import place
from busline.router import Subscriber

Types = Mapping[str, Any]


def check_body(
    subscriber: Subscriber,
    function: Callable[..., Any],
    own: Sequence[inspect.Parameter],
    types: Types,
) -> None:
    """Its first parameter takes whatever its topics carry."""
    at = place(function)
    if not own:
        raise Invalid(
            wrong(
                subscriber.full_name, "a first parameter for the body", "none", "Add one.", place=at
            )
        )
    first = own[0]
    marker, kind = asked(types.get(first.name, Any), first.default, first.name, at)
    if marker is not None:
        raise Invalid(
            wrong(
                first.name,
                "the body, which comes first",
                f"a {type(marker).__name__}",
                "Put the body before it.",
                place=at,
            )
        )
    for topic, wanted in subscriber.source.parts:
        model = topic.model if wanted is None else wanted
        if not fits(model, kind):
            expected = f"'{named(model)}', which '{topic.name}' carries"
            raise Invalid(
                wrong(
                    first.name,
                    expected,
                    f"'{named(kind)}'",
                    "Correct the annotation, or the topic.",
                    place=at,
                )
            )


def check_returned(subscriber: Subscriber, function: Callable[..., Any], types: Types) -> None:
    """What it gives back is for the topic that it names."""
    topic, kind = subscriber.publish, kind_of(function)
    if topic is None:
        if kind.yields:
            raise Invalid(
                wrong(
                    subscriber.full_name,
                    "publish= for what it yields",
                    "none",
                    "Name the topic.",
                    place=place(function),
                )
            )
        return
    returned = _inside(types.get("return", Any), kind)
    if not all(reads(one, topic.model) for one in returned):
        expected = f"what it returns to be '{named(topic.model)}', which '{topic.name}' carries"
        got = " | ".join(map(named, returned))
        raise Invalid(
            wrong(
                subscriber.full_name,
                expected,
                f"'{got}'",
                "Correct the annotation, or publish=.",
                place=place(function),
            )
        )


def check_waits(policy: Retry, at: str) -> None:
    """A retry policy holds up what is behind a record for a minute at most."""
    if policy.total() > LANE_LIMIT:
        remedy = "Lower max_delay= or attempts=: everything behind the record waits meanwhile."
        raise Invalid(
            wrong(
                "retry",
                f"at most {LANE_LIMIT:g} s of waiting in a lane",
                f"up to {policy.total():g} s",
                remedy,
                place=at,
            )
        )


def check_returns(name: str, kind: Kind, at: str) -> None:
    """A task has one result."""
    if kind.yields:
        raise Invalid(
            wrong(
                name,
                "a function that returns",
                "one that yields",
                "Return a list instead.",
                place=at,
            )
        )


def named(kind: Any) -> str:
    """A type in few words."""
    return (
        str(getattr(kind, "__name__", kind))
        if not get_args(kind)
        else str(kind).replace("typing.", "")
    )


def _inside(returned: Any, kind: Kind) -> list[Any]:
    """The types that a function publishes: what it awaits or yields stands inside, None is
    nothing."""
    found = bare(returned)
    while isinstance(outer := get_origin(found), type):
        if issubclass(outer, Awaitable):
            found = bare(get_args(found)[-1])
        elif issubclass(outer, (AsyncIterable, Iterator)) or (
            kind.yields and issubclass(outer, Iterable)
        ):
            found, kind = bare(get_args(found)[0]), Kind.COROUTINE
        else:
            break
    members = get_args(found) if get_origin(found) in UNIONS else (found,)
    return [one for one in members if one not in (None, type(None))]


def wrong_headers(propagate: Sequence[str]) -> Iterator[str]:
    """What is wrong with the headers that an App hands on."""
    if isinstance(propagate, str):
        yield wrong(
            "propagate",
            "a list of headers' names",
            repr(propagate)[:60],
            f"Write propagate=[{propagate!r}].",
        )
        return
    for name in propagate:
        try:
            header_name(name)
        except Invalid as error:
            yield str(error)
