"""The keys of facts that engines and callers agree on; `redrive.lua` and `look.lua` know it too."""


def result_key(id: str) -> str:
    """Where a job's end is kept: `+` and the JSON of what it returned, `-` and [error type, text,
    attempts, and as text: causes and traceback]. A redrive forgets it."""
    return f"result/{id}"
