"""Who reads which partition: each member keeps what it had, as far as the shares stay even. What
moves is nobody's until the member that has it says in a join that it is free: so what stays goes
on, and what moves is ended first."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

Place = tuple[str, int]
NOBODY = -1


class KeepingAssignor:
    """Every member says what it has, and since which generation. One for each consumer."""

    name = "busline-handing-over"

    def __init__(self) -> None:
        self.owned: list[Place] = []
        self.generation = NOBODY

    def metadata(self, topics: Any) -> ConsumerProtocolMemberMetadata:
        claim = json.dumps([self.generation, self.owned]).encode()
        return ConsumerProtocolMemberMetadata(1, sorted(topics), claim)

    def on_assignment(self, assignment: Any) -> None:
        """The member says what it has: some of it is not assigned to it any more, and not yet
        free."""

    def has(self, owned: Iterable[Place], generation: int) -> None:
        self.owned, self.generation = sorted(owned), generation

    def assign(
        self, cluster: Any, members: Mapping[str, Any]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        topics = {member: set[str](data.subscription) for member, data in members.items()}
        read = sorted({topic for names in topics.values() for topic in names})
        places: list[Place] = [
            (topic, part)
            for topic in read
            for part in sorted(cluster.partitions_for_topic(topic) or ())
        ]
        had = claims(members)
        shares = share(places, topics, had)
        return {
            member: _assignment([one for one in own if had.get(one, member) == member])
            for member, own in shares.items()
        }


def claims(members: Mapping[str, Any]) -> dict[Place, str]:
    """Who had each partition last, of those who say so."""
    latest: dict[Place, tuple[int, str]] = {}
    for member, data in members.items():
        generation, owned = _claim(data.user_data)
        for place in owned:
            if generation > latest.get(place, (NOBODY, ""))[0]:
                latest[place] = generation, member
    return {place: member for place, (_, member) in latest.items()}


def _claim(data: bytes | None) -> tuple[int, list[Place]]:
    try:
        generation, owned = json.loads(data or b"")
        return int(generation), [(str(topic), int(part)) for topic, part in owned]
    except (ValueError, TypeError):  # a member of another kind, or another version
        return NOBODY, []


def share(
    places: list[Place], topics: Mapping[str, set[str]], had: Mapping[Place, str]
) -> dict[str, list[Place]]:
    """Every partition to one member that reads its topic; where all read the same, no share is
    larger by more than 1."""
    least, more = divmod(len(places), len(topics))
    shares: dict[str, list[Place]] = {member: [] for member in sorted(topics)}
    free = []
    for place in places:
        member = had.get(place, "")
        if (
            member in shares
            and place[0] in topics[member]
            and len(shares[member]) < least + (more > 0)
        ):
            shares[member].append(place)
        else:
            free.append(place)
    larger = [member for member, own in shares.items() if len(own) > least]
    free += [shares[member].pop() for member in larger[more:]]
    for place in sorted(free):
        readers = [member for member in shares if place[0] in topics[member]]
        shares[
            min(readers, key=lambda member: (len(shares[member]), member != had.get(place), member))
        ].append(place)
    return shares


def _assignment(places: list[Place]) -> ConsumerProtocolMemberAssignment:
    topics: dict[str, list[int]] = {}
    for topic, part in sorted(places):
        topics.setdefault(topic, []).append(part)
    return ConsumerProtocolMemberAssignment(1, list(topics.items()), b"")
