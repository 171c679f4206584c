"""Subscribers: the handler of each, and the work of its group."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from busline.assembly.making import Making, Run
from busline.checks import check_body, check_returned, check_waits
from busline.core.address import redriven
from busline.core.attempt import Read
from busline.core.codec import codec_of
from busline.core.errors import Invalid, wrong
from busline.core.function import kind_of
from busline.core.handler import Collect, Ending, Handler, invoke
from busline.core.message import Delivery
from busline.core.options import Mistakes
from busline.core.policy import STREAM_RETRY
from busline.core.ports import Start, Subscription
from busline.core.signature import Injected, hints, parameters, place, replaced
from busline.middleware.retries import Judge
from busline.middleware.validation import refusal, validation
from busline.router import Subscriber, where
from busline.runtime.work import DEFAULT_CONCURRENCY, THREADS, UNLIMITED, Work
from busline.sends import recorder
from busline.topic import Topic, unwanted

BUFFER = 2000  # what a subscriber has at hand,
LANE_AHEAD = 200  # and of it from one partition that is one lane: a slow one starves nobody
LANES_AHEAD = 10_000  # where a partition has many lanes: a busy one keeps nobody from the others
DEFAULT_PARTITIONS = 16


@dataclass(frozen=True, slots=True)
class Streams:
    """`group` says for which group a subscriber reads."""

    making: Making
    group: Callable[[Subscriber], str]

    def works(self, subscriber: Subscriber, run: Run) -> list[Work]:
        """The work of its group: its topics, and its dead records that run again. Raises Invalid
        with all that is wrong with it."""
        handler = self._handler(subscriber)
        engines, limit = self.making.bus.engines, self._limit(subscriber)
        if handler.threaded and subscriber.concurrency is None:
            limit = min(limit, THREADS)
        limit = min(limit, run.concurrency or limit)
        if engines.streams is None:
            return []
        works = [self._reading(subscriber, handler, limit)]
        home = engines.streams if engines.streams.features.queues else engines.jobs
        if home is not None:
            queue = redriven(self.group(subscriber))
            again = Subscription((queue,), tasks=frozenset((handler.name,)))
            few = min(DEFAULT_CONCURRENCY, limit)
            name = f"{subscriber.full_name} (redriven)"
            works.append(Work(name, home, again, {handler.name: handler}, few, few))
        return works

    def _reading(self, subscriber: Subscriber, handler: Handler, limit: int) -> Work:
        streams = self.making.bus.engines.streams
        assert streams is not None
        subscription = Subscription(
            tuple(topic.address for topic, _ in subscriber.source.parts),
            self.group(subscriber),
            subscriber.order,
            _start(subscriber.start),
            LANE_AHEAD if subscriber.order == "partition" else LANES_AHEAD,
        )
        return Work(
            subscriber.full_name,
            streams,
            subscription,
            {"": handler},
            limit,
            max(BUFFER, limit),
            BUFFER,
            asked=subscriber.concurrency,
        )

    def _limit(self, subscriber: Subscriber) -> int:
        """How many of its functions run at once."""
        given = subscriber.concurrency
        if subscriber.order != "partition":
            return given or DEFAULT_CONCURRENCY
        parts = subscriber.source.parts
        partitions = sum(topic.partitions or self._unsaid() for topic, _ in parts)
        if given is not None and given > partitions:
            raise Invalid(
                wrong(
                    subscriber.full_name,
                    f"concurrency up to {partitions}, the partitions, with order='partition'",
                    str(given),
                    "Use order='key' or more partitions, or lower concurrency=.",
                    place=where(subscriber),
                )
            )
        return given or partitions

    def _unsaid(self) -> int:
        """Partitions of a topic that does not say: a server's own default is known only there."""
        streams = self.making.bus.engines.streams
        return DEFAULT_PARTITIONS if streams is None or streams.features.queues else UNLIMITED

    def _handler(self, subscriber: Subscriber) -> Handler:
        making, name = self.making, subscriber.full_name
        function = replaced(making.replaced, subscriber.function)
        policy = subscriber.retry or subscriber.router.policy() or STREAM_RETRY
        with Mistakes() as mistakes:
            types, own = hints(function, subscriber.around), parameters(function)
            mistakes.of(check_body, subscriber, function, own, types)
            mistakes.of(check_returned, subscriber, function, types)
            mistakes.of(check_waits, policy, place(function))
            mistakes.of(self._limit, subscriber)
            injected = mistakes.of(making.reader.injected, function, own[1:], types)
        publish = subscriber.publish
        ending = Ending(None if publish is None else self._publisher(publish), each=True)
        call = invoke(function, injected or Injected(), ending, spread=False)
        judge = Judge(policy, making.bus.clock, in_lane=True)
        read, group = _read(subscriber), self.group(subscriber)
        run = making.attempt(name, subscriber.router, judge, read, call, group)
        return Handler(name, run, judge.failed, subscriber.timeout, kind_of(function).threaded)

    def _publisher(self, topic: Topic[Any]) -> Collect:
        bus, record = self.making.bus, recorder(self.making.bus, topic)

        def collect(delivery: Delivery, value: Any) -> None:
            if value is not None:
                bus.leave(delivery, topic.address, record(value))

        return collect


def _read(subscriber: Subscriber) -> Read:
    """How its bodies are read, by the topic they come from."""
    reads = {topic.name: _read_of(topic, wanted) for topic, wanted in subscriber.source.parts}
    return next(iter(reads.values())) if len(reads) == 1 else _by_address(reads)


def _read_of(topic: Topic[Any], wanted: Any) -> Read:
    if wanted is None:
        return validation(topic.codec, refuse=refusal)
    codec = codec_of(wanted, topic.name, reads=True)
    return validation(codec, refuse=refusal, unwanted=unwanted(topic, wanted))


def _by_address(reads: Mapping[str, Read]) -> Read:
    return lambda delivery: reads[delivery.address](delivery)


def _start(start: str | datetime) -> Start:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise Invalid(
                wrong(
                    "start",
                    "a datetime with a time zone",
                    start.isoformat(),
                    "Write datetime.now(UTC), or .astimezone().",
                )
            )
        return start.timestamp()
    if start not in ("earliest", "latest"):
        raise Invalid(
            wrong(
                "start",
                "'earliest', 'latest' or a datetime",
                repr(start)[:40],
                "Leave it out for the earliest.",
            )
        )
    return start  # type: ignore[return-value]  # one of the two
