"""From declarations to what runs: every function with its chain, and one piece of work for each
subscription."""

from busline.assembly.making import Functions, Run, Watch
from busline.assembly.plan import Assembly, tracing

__all__ = ["Assembly", "Functions", "Run", "Watch", "tracing"]
