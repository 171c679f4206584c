"""Where a record stands: `topic/partition@offset`, a text that goes with jobs and dead letters."""


def topic_of(position: str) -> str:
    return position.rpartition("/")[0]


def partition_of(position: str) -> str:
    """The part of its topic, `topic/partition`."""
    return position.rpartition("@")[0]


def number_of(position: str) -> str:
    """The partition's number alone."""
    return partition_of(position).rpartition("/")[2]


def offset_of(position: str) -> int:
    return int(position.rpartition("@")[2])
