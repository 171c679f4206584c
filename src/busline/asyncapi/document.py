"""The document: servers, channels, operations, messages, and the schemas of their types."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from busline.app import App
from busline.asyncapi.examples import example
from busline.asyncapi.ids import Ids, safe
from busline.asyncapi.schemas import Mode, Wanted, schemas
from busline.checks import named
from busline.core.address import dead_topic
from busline.core.depends import Header
from busline.core.fits import UNIONS
from busline.core.markers import asked, defaultless
from busline.core.policy import STREAM_RETRY, TASK_RETRY, Retry
from busline.core.signature import hints, parameters
from busline.engine import Kafka, Redis
from busline.naming import Named
from busline.router import Subscriber
from busline.task import Task
from busline.topic import Topic

VERSION = "3.1.0"
ID = "#/components/correlationIds/id"
JSON, BYTES = "application/json", "application/octet-stream"
NOTES = {
    "group": True, "position": True, "reason": True, "attempts": True, "at": True, "died-at": True,
    "handler": True,
    "error-type": False, "error": False, "details": False, "key": False, "tombstone": False,
    "elsewhere": False,
}  # fmt: skip


@dataclass(slots=True)
class Described:
    """One message of a channel, before its schema is made."""

    id: str
    name: str
    mode: Mode
    adapter: TypeAdapter[Any]
    model: Any
    key: bool = False
    headers: dict[str, bool] = field(default_factory=dict[str, bool])
    type: str = JSON


def document(app: App, *, version: str = "0.0.0") -> dict[str, Any]:
    """What an App reads and writes, as AsyncAPI 3.1: plain data, the same for the same App. Opens
    no engine.

    Raises ConfigError or Invalid for an App that could not start.
    """
    return _Writer(app, version).write()


class _Writer:
    """Collects the parts of one document."""

    def __init__(self, app: App, version: str) -> None:
        self._app, self._version = app, version
        self._named = app.engine_names()
        self._described: dict[str, dict[str, Described]] = {}  # by channel
        self._operations: dict[str, Any] = {}
        self._channels: dict[str, Any] = {}
        self._ids, self._in_channel = Ids(), dict[str, Ids]()

    def write(self) -> dict[str, Any]:
        for topic in self._app.topics():
            self._topic(topic)
        for subscriber in self._app.all_subscribers():
            self._subscriber(subscriber)
        for topic in self._app.publishes:
            self._send(
                self._ids.of(f"publish_{topic.name}", ("publish", topic.name)), topic.name, topic
            )
        for task in self._app.all_tasks():
            self._task(task)
        messages, models = self._messages()
        found = {
            "asyncapi": VERSION,
            "id": f"urn:busline:{safe(self._app.name)}",
            "info": self._info(),
            "defaultContentType": "application/json",
            "servers": self._servers(),
            "channels": self._channels,
            "operations": self._operations,
            "components": {
                "messages": messages,
                "schemas": models,
                "correlationIds": {"id": {"location": "$message.header#/busline-id"}},
            },
        }
        return {name: part for name, part in found.items() if part}

    def _info(self) -> dict[str, Any]:
        about = inspect.getdoc(type(self._app)) if type(self._app) is not App else None
        return {"title": self._app.name, "version": self._version} | (
            {"description": about} if about else {}
        )

    # --- servers -----------------------------------------------------------------------------

    def _servers(self) -> dict[str, Any]:
        named = {"streams": self._named.streams, "jobs": self._named.jobs}
        return {name: _server(one) for name, one in named.items() if one is not None}

    def _on_kafka(self) -> bool:
        return self._named.streams is not None and isinstance(self._named.streams.engine, Kafka)

    def _on(self, which: str) -> list[dict[str, str]]:
        return [{"$ref": f"#/servers/{which}"}]

    # --- topics ------------------------------------------------------------------------------

    def _topic(self, topic: Topic[Any]) -> None:
        id = self._topic_id(topic)
        self._channel(id, topic.name, topic.name, "streams")
        if self._on_kafka():
            self._channels[id]["bindings"] = {"kafka": _kafka_channel(topic)}

    def _topic_id(self, topic: Topic[Any]) -> str:
        return self._ids.of(f"topic_{topic.name}", ("topic", topic.name))

    def _channel(self, id: str, address: str | None, title: str, server: str) -> None:
        self._channels[id] = {
            "address": address,
            "title": title,
            "servers": self._on(server),
            "messages": {},
        }
        self._described[id], self._in_channel[id] = {}, Ids()

    def _describe(
        self, topic: Topic[Any], model: Any, mode: Mode, headers: Mapping[str, bool]
    ) -> list[str]:
        """The messages of a topic's types, one for each member of a union. Returns their ids in the
        channel."""
        channel, ids = self._topic_id(topic), list[str]()
        known = self._described[channel]
        for member in _members(model):
            name = _name(member)
            id = self._in_channel[channel].of(
                name if mode == "validation" else f"{name}.sent", (member, mode)
            )
            one = known.setdefault(
                id, Described(id, name, mode, TypeAdapter(member), member, topic.key is not None)
            )
            one.headers.update(
                {
                    header: needed or one.headers.get(header, False)
                    for header, needed in headers.items()
                }
            )
            ids.append(id)
        return ids

    # --- subscribers -------------------------------------------------------------------------

    def _subscriber(self, subscriber: Subscriber) -> None:
        several = len(subscriber.source.parts) > 1
        for topic, wanted in subscriber.source.parts:
            ids = self._describe(
                topic,
                topic.model if wanted is None else wanted,
                "validation",
                _headers(subscriber.function, subscriber.around),
            )
            name = f"{subscriber.full_name}_{topic.name}" if several else subscriber.full_name
            id = self._ids.of(f"receive_{name}", ("receive", subscriber.full_name, topic.name))
            self._operations[id] = self._operation(
                "receive", subscriber.full_name, subscriber.function, self._topic_id(topic), ids
            ) | self._group(subscriber)
        if self._on_kafka():
            self._dead_letters(subscriber)
        if subscriber.publish is not None:
            id = self._ids.of(f"send_{subscriber.full_name}", ("send", subscriber.full_name))
            self._send(id, subscriber.full_name, subscriber.publish)

    def _send(self, id: str, name: str, topic: Topic[Any]) -> None:
        ids = self._describe(topic, topic.model, "serialization", {})
        self._operations[id] = self._operation("send", name, None, self._topic_id(topic), ids)

    def _operation(
        self, action: str, name: str, function: Any, channel: str, ids: Sequence[str]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {
            "action": action,
            "title": name,
            "channel": {"$ref": f"#/channels/{channel}"},
        }
        if function is not None and (about := inspect.getdoc(function)):
            found |= {"summary": about.splitlines()[0], "description": about}
        if len(words := name.split(".")) > 1:
            found["tags"] = [{"name": word} for word in words[:-1]]
        return found | {"messages": [_of_channel(channel, id) for id in ids]}

    def _group(self, subscriber: Subscriber) -> dict[str, Any]:
        policy = subscriber.retry or subscriber.router.policy() or STREAM_RETRY
        group = self._app.group_of(subscriber)
        found: dict[str, Any] = {
            "x-busline-group": group,
            "x-busline-order": subscriber.order,
            "x-busline-retry": _retry(policy),
        }
        if self._on_kafka():
            found["bindings"] = {"kafka": {"groupId": {"type": "string", "enum": [group]}}}
            found["x-busline-dead-letters"] = [
                dead_topic(topic.name, group) for topic, _ in subscriber.source.parts
            ]
        return found

    def _dead_letters(self, subscriber: Subscriber) -> None:
        """On Kafka they are records of a topic for each group on each topic: the bytes that died,
        and why, in headers."""
        headers = {f"busline-{name}": needed for name, needed in NOTES.items()}
        for topic, _ in subscriber.source.parts:
            name = dead_topic(topic.name, self._app.group_of(subscriber))
            id = self._ids.of(f"dead_{name}", ("dead", name))
            self._channel(id, name, name, "streams")
            self._channels[id]["bindings"] = {
                "kafka": {
                    "topic": name,
                    "partitions": 1,
                    "topicConfiguration": {"cleanup.policy": ["compact"]},
                }
            }
            one = Described(
                "letter",
                f"{subscriber.full_name} dead letter",
                "validation",
                TypeAdapter(Any),
                Any,
                True,
                headers,
                BYTES,
            )
            self._described[id] = {one.id: one}
            self._operations[self._ids.of(f"bury_{name}", ("bury", name))] = self._operation(
                "send", subscriber.full_name, None, id, [one.id]
            )

    # --- tasks -------------------------------------------------------------------------------

    def _task(self, task: Task[..., Any, Any]) -> None:
        channel = self._queue(task)
        id = self._in_channel[channel].of(task.name, task)
        adapter = task.arguments.codec.adapter
        self._described[channel][id] = Described(
            id,
            task.name,
            "validation",
            adapter,
            task.function,
            headers=_headers(task.function, task.around),
        )
        router: Any = task.home
        policy = task.declared.retry or router.policy() or TASK_RETRY
        found = self._operation("receive", task.name, task.function, channel, [id]) | {
            "x-busline-retry": _retry(policy)
        }
        if task.keep_result:
            found |= {"reply": self._reply(task), "x-busline-keep-result": task.keep_result}
        self._operations[self._ids.of(f"run_{task.name}", ("run", task.name))] = found

    def _queue(self, task: Task[..., Any, Any]) -> str:
        name = task.queue_address().name
        id = self._ids.of(f"queue_{name}", ("queue", name))
        if id not in self._channels:
            self._channel(id, name, name, "jobs")
            self._channels[id] |= self._list(name)
        return id

    def _list(self, queue: str) -> dict[str, Any]:
        engine = self._named.jobs and self._named.jobs.engine
        return (
            {"x-busline-redis": {"type": "list", "key": f"{{{engine.namespace}}}:queue:{queue}"}}
            if isinstance(engine, Redis)
            else {}
        )

    def _reply(self, task: Task[..., Any, Any]) -> dict[str, Any]:
        """The result of a job: kept by the jobs engine under the job's id."""
        id, name = self._ids.of(f"result_{task.name}", ("result", task.name)), f"{task.name} result"
        self._channel(id, None, name, "jobs")
        adapter = task.result_codec.adapter
        self._described[id] = {id: Described(id, name, "serialization", adapter, task.function)}
        return {"channel": {"$ref": f"#/channels/{id}"}, "messages": [_of_channel(id, id)]}

    # --- messages ----------------------------------------------------------------------------

    def _messages(self) -> tuple[dict[str, Any], dict[str, Any]]:
        ids, messages = Ids(), dict[str, Any]()
        every = {
            (channel, one.id): one
            for channel, described in self._described.items()
            for one in described.values()
        }
        names = {place: ids.of(".".join(place), place) for place in every}
        found, models = schemas(
            Wanted(names[place], one.mode, one.adapter) for place, one in every.items()
        )
        for channel, described in self._described.items():
            self._unite(channel, described, {id: found[names[channel, id]] for id in described})
            for one in described.values():
                id = names[channel, one.id]
                one.headers = (
                    dict.fromkeys(("traceparent", *self._app.propagate), False) | one.headers
                )
                messages[id] = _message(one, found[id], models)
                self._channels[channel]["messages"][one.id] = {
                    "$ref": f"#/components/messages/{id}"
                }
        return messages, models

    def _unite(
        self, channel: str, described: dict[str, Described], payloads: Mapping[str, Any]
    ) -> None:
        """What is read as it is written is one message of the channel."""
        sent = [one for one in described.values() if one.mode == "serialization"]
        for one in sent:
            same = [
                other
                for other in described.values()
                if other is not one and other.model == one.model
            ]
            if same and payloads[same[0].id] == payloads[one.id]:
                del described[one.id]
                self._instead(_of_channel(channel, one.id), _of_channel(channel, same[0].id))

    def _instead(self, old: dict[str, str], new: dict[str, str]) -> None:
        for operation in self._operations.values():
            operation["messages"] = [new if one == old else one for one in operation["messages"]]


def _of_channel(channel: str, id: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}/messages/{id}"}


def _message(one: Described, payload: dict[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    names = {"busline-id": False, **one.headers}
    headers: dict[str, Any] = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
    }
    if needed := [name for name, need in names.items() if need]:
        headers["required"] = needed
    found: dict[str, Any] = {
        "name": one.name,
        "title": one.name,
        "contentType": one.type,
        "correlationId": {"$ref": ID},
    }
    found |= {"headers": headers, "payload": payload}
    if one.key:
        found["bindings"] = {"kafka": {"key": {"type": "string"}}}
    value = example(payload, models, one.adapter) if one.type == JSON else None
    return found if value is None else found | {"examples": [{"name": "example", "payload": value}]}


def _server(named: Named) -> dict[str, Any]:
    """Where an engine is, without secrets; of a file on some machine's disk only that it is one."""
    scheme, _, rest = str(named.engine).partition("://")
    if not named.engine.server:
        return {
            "host": "localhost",
            "protocol": scheme,
            "description": f"embedded ({scheme}), in the process or on its machine's disk",
        }
    path = urlsplit(f"//{rest}").path
    found = {"host": rest.partition("/")[0], "protocol": scheme}
    return found | ({"pathname": path} if path.strip("/") else {})


def _kafka_channel(topic: Topic[Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if topic.compact:
        settings["cleanup.policy"] = ["compact"]
    if topic.retention is not None:
        settings["retention.ms"] = int(topic.retention * 1000)
    found: dict[str, Any] = {"topic": topic.name} | (
        {"partitions": topic.partitions} if topic.partitions else {}
    )
    return found | ({"topicConfiguration": settings} if settings else {})


def _members(model: Any) -> Iterator[Any]:
    """The types of a union, or the one type; a tombstone is no message of its own."""
    inner = get_args(model)[0] if get_origin(model) is Annotated else model
    if get_origin(inner) in UNIONS:
        yield from (one for one in get_args(inner) if one is not type(None))
    else:
        yield model


def _name(model: Any) -> str:
    return named(get_args(model)[0] if get_origin(model) is Annotated else model)


def _headers(function: Any, around: Mapping[str, Any]) -> dict[str, bool]:
    """The headers that a function asks for, and whether it needs them."""
    types, found = hints(function, around), dict[str, bool]()
    for parameter in parameters(function):
        marker, kind = asked(types.get(parameter.name, Any), parameter.default)
        if isinstance(marker, Header):
            found[marker.name or parameter.name.replace("_", "-")] = defaultless(
                parameter
            ) and type(None) not in get_args(kind)
    return found


def _retry(policy: Retry) -> dict[str, Any]:
    return {
        "attempts": policy.attempts,
        "longest-wait": policy.longest(max(policy.attempts - 1, 1)),
    }
