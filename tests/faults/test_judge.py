"""The judge finds what is planted in a ledger, and nothing in a clean one."""

from dataclasses import replace

from tests.faults.judge import Commit, Fault, Line, Promise, Story, judge

KAFKA, BROKERS, QUEUE = Promise(0.25, "run"), Promise(0.25, "more"), Promise(0.0, "message")
VICTIM, OTHER = 11, 12


def ran(
    n: int, begun: float, ended: float | None, process: int = OTHER, key: str = "k", place: str = ""
) -> list[Line]:
    """One run, and its effect if it ended."""
    place = place or f"t/0@{n}"
    begin = Line("begin", begun, process, n, key, place)
    return (
        [begin]
        if ended is None
        else [
            begin,
            Line("end", ended, process, n, key, place),
            Line("effect", ended + 0.01, OTHER, n, key, "-"),
        ]
    )


def told(*runs: list[Line]) -> list[Line]:
    return sorted((line for run in runs for line in run), key=lambda line: line.at)


def clean() -> Story:
    """Four records. The second was cut by a kill; the first had ended just before it, and ran again
    with it."""
    lines = told(
        ran(0, 1.0, 1.9, VICTIM),
        ran(1, 1.95, None, VICTIM),
        ran(0, 5.0, 5.1),
        ran(1, 5.1, 5.2),
        ran(2, 5.3, 5.4),
        ran(3, 5.5, 5.6),
    )
    commits = [Commit(0.5, "t/0", 0), Commit(5.25, "t/0", 2), Commit(6.0, "t/0", 4)]
    return Story(frozenset(range(4)), lines, [Fault(2.0, 2.0, VICTIM)], commits)


def job(n: int, begun: float, ended: float | None, process: int = OTHER) -> list[Line]:
    return ran(n, begun, ended, process, "-", f"job/{n}")


def test_a_clean_ledger_passes() -> None:
    verdict = judge(clean(), KAFKA)

    assert verdict.good and list(verdict.findings()) == []
    assert (verdict.messages, verdict.faults, verdict.again) == (4, 1, 2)
    assert [round(one, 3) for one in verdict.seconds] == [3.2]


def test_a_lost_message_is_found() -> None:
    story = clean()

    never = judge(replace(story, published=frozenset(range(5))), KAFKA)
    cut = judge(
        replace(
            story,
            lines=[
                one
                for one in story.lines
                if (one.what, one.number) not in (("end", 3), ("effect", 3))
            ],
        ),
        KAFKA,
    )
    without = judge(
        replace(
            story, lines=[one for one in story.lines if (one.what, one.number) != ("effect", 2)]
        ),
        KAFKA,
    )
    left = judge(replace(story, left=1), KAFKA)

    assert never.lost == ["4 was never run to its end"]
    assert cut.lost == ["3 was never run to its end"]
    assert without.lost == ["2 ran, and its effect is nowhere"]
    assert left.lost == ["1 are left in the engine"]


def test_what_is_dead_is_lost_unless_its_workers_died() -> None:
    story = Story(frozenset({0, 1}), job(0, 1.0, 1.1), dead={1: "its worker died 3 times"})

    assert judge(story, QUEUE).good and judge(story, QUEUE).buried == 1
    assert judge(replace(story, dead={1: "ValueError"}), QUEUE).lost == [
        "1 was never run to its end",
        "1 is dead: ValueError",
    ]


def test_a_second_run_that_no_fault_explains_is_found() -> None:
    faults = [Fault(2.0, 2.0, VICTIM)]

    def doubled(*runs: list[Line]) -> bool:
        lines = told(*runs)
        return bool(judge(Story(frozenset({0}), lines, faults), KAFKA).doubled)

    assert doubled(ran(0, 1.0, 1.1), ran(0, 3.0, 3.1)), "nobody was disturbed"
    assert doubled(ran(0, 1.0, 1.1, VICTIM), ran(0, 3.0, 3.1)), "it had ended long before the kill"
    assert doubled(ran(0, 1.0, None), ran(0, 3.0, 3.1)), "another process was killed"
    assert doubled(ran(0, 1.0, None, VICTIM), ran(0, 3.0, 3.1), ran(0, 4.0, 4.1)), (
        "one kill explains one run"
    )
    assert not doubled(ran(0, 1.0, None, VICTIM), ran(0, 3.0, 3.1)), "it was cut"
    assert not doubled(ran(0, 1.0, 1.8, VICTIM), ran(0, 3.0, 3.1)), "it ended within the window"


def test_a_frozen_run_may_end_after_another() -> None:
    lines = told(job(0, 1.0, 9.0, VICTIM)[:2], job(0, 4.0, 4.1))
    story = Story(frozenset({0}), lines, [Fault(2.0, 8.0, VICTIM)])

    assert judge(story, QUEUE).good
    assert judge(replace(story, faults=[]), QUEUE).doubled


def test_an_effect_too_many_is_found() -> None:
    lines = told(job(0, 1.0, 1.5, VICTIM), job(0, 3.0, 3.1))
    story = Story(frozenset({0}), lines, [Fault(1.4, 1.4, VICTIM)])

    assert judge(story, QUEUE).doubled == ["0 has 2 effects of 2 runs"]
    assert judge(story, KAFKA).good, "at least once: each run sent one"
    again = replace(story, lines=[*lines, lines[-1]])
    assert judge(again, KAFKA).doubled == ["0 has 3 effects of 2 runs"]
    assert judge(again, BROKERS).good, "the answer to a send was lost"


def test_broken_order_is_found() -> None:
    def disordered(*runs: list[Line]) -> bool:
        lines = told(*runs)
        return bool(judge(Story(frozenset({0, 1}), lines), KAFKA).disordered)

    assert disordered(ran(1, 1.0, 1.1), ran(0, 2.0, 2.1)), "the later came first"
    assert disordered(ran(0, 1.0, 2.0), ran(1, 1.5, 2.1)), "side by side"
    assert not disordered(ran(0, 1.0, 2.0, key="a"), ran(1, 1.5, 2.1, key="b")), "of two keys"
    assert not disordered(ran(0, 1.0, 1.1), ran(1, 1.2, 1.3), ran(0, 2.0, 2.1)), (
        "the second time does not count"
    )


def test_a_commit_above_an_unfinished_record_is_found() -> None:
    story = clean()

    early = judge(replace(story, commits=[Commit(5.15, "t/0", 2)]), KAFKA)
    beyond = judge(replace(story, commits=[Commit(9.0, "t/0", 5)]), KAFKA)

    assert early.early == ["t/0@1 had not ended when 2 was committed"]
    assert beyond.early == ["t/0@4 had not ended when 5 was committed"]
