"""What is sent, and what outcomes carry: into the file, inside its transaction."""

import sqlite3
from collections.abc import Mapping, Sequence

from busline.core.address import Address
from busline.core.message import Delivery, Message
from busline.core.outcome import ACKED, Effect, Keep, Send, Settled
from busline.transports.sqlite import jobs, topics
from busline.transports.sqlite.facts import SqliteStore, keep
from busline.transports.sqlite.jobs import Impossible
from busline.transports.sqlite.session import Session


class Effects:
    """Records without a key go to the partitions by turns: `_turn` counts them."""

    def __init__(self, session: Session, store: SqliteStore) -> None:
        self._session, self._store = session, store
        self._turn = 0

    def add(
        self, db: sqlite3.Connection, address: Address, messages: Sequence[Message], now: float
    ) -> Mapping[int, str]:
        """Jobs or records. Returns those that were there already, by index."""
        if address.kind == "queue":
            return jobs.insert(db, address.name, messages, now)
        self._turn += len(messages)
        topics.append(db, address, messages, self._turn)
        return {}

    def apply(
        self, db: sqlite3.Connection, delivery: Delivery, effects: Sequence[Effect], now: float
    ) -> None:
        """What an outcome carries. Raises Impossible for what can never be applied."""
        try:
            for effect in effects:
                if isinstance(effect, Send):
                    self.add(db, effect.address, [effect.message], now)
                else:
                    keep(db, effect.key, effect.value, now + effect.ttl)
        except (ValueError, OverflowError) as error:  # Invalid is one
            raise Impossible(delivery, error) from error

    def on_applied(self, settled: Sequence[Settled]) -> None:
        """They are committed: wakes whoever waits for what these outcomes carried."""
        rich = [outcome for _, outcome in settled if outcome is not ACKED]
        effects = [effect for outcome in rich for effect in outcome.effects]
        if effects or not all(outcome.final for outcome in rich):
            self._session.wake()
        self._store.arrived({one.key: one.value for one in effects if isinstance(one, Keep)})
