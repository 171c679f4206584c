"""The long form: `./scripts/faults FILE [--seconds 180]` starts a Kafka and a Redis, and lays
siege."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from examples.flights import siege

from tests.servers.kafka import Kafka
from tests.servers.redis import running


def main(words: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, running(appendonly="yes") as redis:
        kafka = Kafka(Path(folder), partitions=8)
        kafka.start()
        try:
            engines = [
                "--streams",
                f"{kafka.url}?session=3&create_topics=1",
                "--jobs",
                f"{redis.url}?lease=3",
            ]
            siege.main([*words, *engines])
        finally:
            kafka.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
