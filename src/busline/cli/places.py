"""A topic or a queue by its name, and what its messages are read with."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from busline.app import App
from busline.core.address import Address
from busline.core.codec import Codec, codec_of, explain
from busline.core.errors import Invalid, wrong
from busline.core.message import DeadLetter

Read = Callable[[bytes], object]


def queues(app: App) -> dict[str, Address]:
    """The queues of an App's tasks, by the names that its declarations use."""
    return {task.declared.queue or app.name: task.queue_address() for task in app.all_tasks()}


def queue(app: App, name: str) -> Address:
    return _chosen(app, name, queues(app), "queue")


def place(app: App, name: str) -> Address:
    """A topic or a queue. A name that is both is the topic's; `queue:NAME` is the queue."""
    if name.startswith("queue:"):
        return queue(app, name.removeprefix("queue:"))
    topics = {topic.name: topic.address for topic in app.topics()}
    return _chosen(app, name, queues(app) | topics, "topic or queue")


def _chosen(app: App, name: str, known: Mapping[str, Address], what: str) -> Address:
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise Invalid(
            wrong(name, f"a {what} of '{app.name}' ({names})", "another", "Correct the name.")
        )
    return known[name]


def reader_of(app: App, letter: DeadLetter) -> Read | None:
    """Raises ValueError for a body that the handler of a letter cannot read; None where the App has
    no such handler."""
    for one in app.all_subscribers():
        for topic, wanted in one.source.parts:
            if (topic.name, app.group_of(one)) == (letter.address, letter.group):
                return _reading(
                    topic.codec if wanted is None else codec_of(wanted, topic.name, reads=True)
                )
    for task in app.all_tasks():
        if task.name == letter.handler:
            return _reading(task.arguments.codec)
    return None


def _reading(codec: Codec) -> Read:
    def read(body: bytes) -> Any:
        codec.check(body)
        return codec.decode(body)

    return read


def refusal(read: Read, body: bytes) -> str | None:
    """Why a body cannot be read; None where it can."""
    try:
        read(body)
    except ValueError as error:
        return explain(error) if isinstance(error, ValidationError) else str(error)
    return None
