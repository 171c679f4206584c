"""What is away: said once, shown as long as it lasts, tried again."""

import logging

from busline.core.errors import BuslineError, ConfigError, Unavailable

log = logging.getLogger("busline")
AWAY = (Unavailable, ConfigError)  # a server that refuses a login it took before is away, too


class Outage:
    """One thing that is waited for, longer and longer. `away`: where all of a worker's are noted;
    `back`: what is said when it is over."""

    def __init__(self, name: str, away: dict[str, str], back: str) -> None:
        self._name, self._away, self._back, self.tries = name, away, back, 0

    def again(self, error: BuslineError) -> float:
        """Seconds to wait before the next try."""
        text = str(error)
        if self.tries == 0 and text not in self._away.values():
            log.warning("%s: %s Nothing is lost; it goes on when that is mended.", self._name, text)
        self.tries += 1
        self._away[self._name] = text
        return float(min(0.1 * 2**self.tries, 2.0))

    def over(self) -> None:
        """It is back, if it was away."""
        if self.tries:
            self._away.pop(self._name, None)
            if not self._away:
                log.warning("%s: %s", self._name, self._back)
        self.tries = 0
