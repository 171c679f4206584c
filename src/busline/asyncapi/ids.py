"""Keys of a document."""

import re

UNSAFE = re.compile(r"[^\w.\-]")


def safe(name: str) -> str:
    """A name with nothing in it that a key may not have."""
    return UNSAFE.sub("_", name)


class Ids:
    """One for each thing: what would share a key with another thing gets a number."""

    def __init__(self) -> None:
        self._things: dict[str, object] = {}

    def of(self, name: str, thing: object) -> str:
        """The key of a thing that is called so; the same each time."""
        id, turn = safe(name), 1
        while self._things.setdefault(id, thing) != thing:
            turn += 1
            id = f"{safe(name)}_{turn}"
        return id
