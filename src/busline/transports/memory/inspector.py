"""Looks into the engine, and steers its dead letters."""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from busline.core.address import Address
from busline.core.counts import Counts, Whose
from busline.core.errors import wrong
from busline.core.facts import result_key
from busline.core.ids import new_id
from busline.core.message import DeadLetter, Delivery, delivered
from busline.core.ports import Depth, Lag, Look, Redriven, Standing, State, together
from busline.core.served import Served
from busline.transports.memory.places import Letter, Line

if TYPE_CHECKING:
    from busline.transports.memory import MemoryTransport


class MemoryInspector:
    """Looks into the engine, and steers its dead letters."""

    def __init__(self, transport: "MemoryTransport") -> None:
        self._of = transport

    async def look(self, id: str) -> Look:
        if (job := self._of.jobs.get(id)) is not None:
            line = self._of.line(job.queue)
            state: State = (
                "running"
                if job.owner is not None
                else "delayed"
                if any(one[2] == id for one in line.due)
                else "waiting"
            )
            return Look(state, job.attempts + (state == "running"))
        if (letter := self._of.letters.get(id)) is not None:
            return Look("failed", letter.shown.attempts, letter.shown)
        return Look("succeeded" if self._of.store.look(result_key(id)) is not None else "unknown")

    async def depth(self) -> Mapping[str, Depth]:
        running: dict[str, int] = {}
        for job in self._of.jobs.values():
            running[job.queue] = running.get(job.queue, 0) + (job.owner is not None)
        return {
            name: Depth(
                len(line.waiting),
                len(line.due) - len(line.retrying),
                line.again(),
                running.get(name, 0),
                self._oldest(line),
            )
            for name, line in self._of.lines.items()
        }

    def _oldest(self, line: Line) -> float | None:
        return self._of.jobs[line.waiting[0]].message.since if line.waiting else None

    async def peek(self, address: Address, limit: int) -> Sequence[Delivery]:
        if address.kind == "topic":
            return self._records(address.name, limit)
        line = self._of.lines.get(address.name) or Line()
        later = [id for _, _, id in sorted(line.due)] + [
            id for jobs in line.aside.values() for _, id in jobs
        ]
        found = [self._of.jobs[id] for id in [*line.waiting, *later][:limit]]
        return [delivered(one.message, address.name, one.attempts + 1) for one in found]

    def _records(self, topic: str, limit: int) -> list[Delivery]:
        log = self._of.logs.get(topic)
        parts = () if log is None else log.parts
        last = [
            (one.at, f"{topic}/{part}@{n}", one)
            for part, all in enumerate(parts)
            for n, one in list(enumerate(all))[-limit:]
        ]
        return [
            Delivery(one, topic, 1, position, None, None)
            for _, position, one in sorted(last, key=lambda one: one[0])[-limit:]
        ]

    async def clear(self, queue: str) -> int:
        line = self._of.lines.get(queue) or Line()
        gone = [
            *line.waiting,
            *(id for _, _, id in line.due),
            *(id for jobs in line.aside.values() for _, id in jobs),
        ]
        for id in gone:
            message = self._of.jobs.pop(id).message
            self._of.locks.pop(message.unique or "", None)
        for part in (line.waiting, line.due, line.retrying, line.aside):
            part.clear()
        return len(gone)

    async def lag(self, groups: Sequence[str] | None = None) -> Sequence[Lag]:
        found = []
        for (group, topic), frontiers in self._of.groups.items():
            if groups is None or group in groups:
                parts = self._of.logs[topic].parts
                behind = sum(one.behind(len(parts[n])) for n, one in enumerate(frontiers))
                found.append(
                    Lag(group, topic, behind, len(parts), int((group, topic) in self._of.owners))
                )
        return found

    async def partitions(self, topic: str) -> int:
        return len(self._of.logs[topic].parts) if topic in self._of.logs else 0

    async def counts(self) -> Mapping[Whose, Counts]:
        return {whose: replace(one) for whose, one in self._of.counts.items()}

    async def dead(
        self,
        *,
        served: Container[Served] | None = None,
        handlers: Collection[str] | None = None,
        id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> Sequence[DeadLetter]:
        shown = [letter.shown for letter in self._of.letters.values()]
        if after in self._of.letters:
            shown = shown[list(self._of.letters).index(after) + 1 :]
        shown = [
            one
            for one in shown
            if (served is None or one.served in served)
            and (handlers is None or one.handler in handlers)
        ]
        return [one for one in shown if id in (None, one.id)][:limit]

    async def standing(self, served: Container[Served] | None = None) -> Sequence[Standing]:
        return together(
            map(Standing.of, await self.dead(served=served, limit=len(self._of.letters)))
        )

    async def redrive(self, ids: Sequence[str], handler: str | None = None) -> Redriven:
        again, refused = 0, []
        for id in ids:
            letter = self._of.letters.get(id)
            if letter is None:
                continue
            holder = self._of.locks.get(letter.message.unique or "")
            if holder is not None:
                refused.append(
                    wrong(
                        id,
                        "no living job of the same unique key",
                        f"the job {holder}",
                        "Redrive it when that one is final.",
                    )
                )
                continue
            self._redrive(id, letter, handler)
            again += 1
        return Redriven(again, tuple(refused))

    def _redrive(self, id: str, letter: Letter, handler: str | None) -> None:
        del self._of.letters[id]
        self._of.errors.pop(id, None)
        self._of.store.forget(result_key(id))
        self._of.remembered.pop(id, None)
        own = new_id() if id in self._of.jobs else id  # another job lives under this id
        self._of.add(
            letter.address,
            [replace(letter.message, id=own, due=None, task=handler or letter.message.task)],
        )

    async def mend(self, id: str, body: bytes) -> bool:
        letter = self._of.letters.get(id)
        if letter is None:
            return False
        letter.shown, letter.message = (
            replace(letter.shown, body=body),
            replace(letter.message, body=body),
        )
        return True

    async def purge(self, ids: Sequence[str]) -> int:
        for id in ids:
            self._of.errors.pop(id, None)
        return sum(self._of.letters.pop(id, None) is not None for id in ids)
