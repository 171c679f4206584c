"""Every attack in its short form: nothing is lost, doubled beyond the promise, out of order, or
committed too early."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.attacks import ATTACKS, Attack, Ground, ground

SECONDS = 2
BESIDE = (
    ("kafka-churn", "kafka-worker"),
    ("redis-answers", "redis-worker", "redis-frozen", "redis-restart"),
    ("sqlite-jobs", "sqlite-records"),
)
# these share a cluster
ALONE = [(one.name,) for one in ATTACKS if not any(one.name in group for group in BESIDE)]


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.server
@pytest.mark.parametrize("names", [*ALONE, *BESIDE], ids=", ".join)
async def test_the_judge_finds_nothing(place: Ground, names: tuple[str, ...]) -> None:
    async with asyncio.TaskGroup() as group:
        for attack in ATTACKS:
            if attack.name in names:
                group.create_task(withstood(place, attack))


async def withstood(place: Ground, attack: Attack) -> None:
    """A second run that nothing explains may be a busy machine's, once: a member that was kept from
    its heartbeat."""
    verdict = await attack.run(place, SECONDS)
    if verdict.doubled and not (verdict.lost or verdict.disordered or verdict.early):
        verdict = await attack.run(place, SECONDS)
    assert list(verdict.findings()) == [] and verdict.faults > 0, attack.name
