"""Whether there is somebody to ask."""

import sys


def can_ask() -> bool:
    return sys.stdin.isatty()
