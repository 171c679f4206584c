"""`./scripts/faults`: attacks on engines, judged by a ledger. With a file of flights: a siege, the
long way."""

import argparse
import asyncio
import json
import logging
import sys
import time

from tests.faults import siege
from tests.faults.attacks import ATTACKS, Attack, Ground, ground
from tests.faults.field import Field
from tests.faults.report import PAGE, Found, page, table


def main(words: list[str]) -> int:
    """Returns 1 if the judge found anything."""
    if words and not words[0].startswith("-"):
        siege.main(words)
    options = parser().parse_args(words)
    logging.disable(logging.ERROR)  # the clients tell of every connection that is refused
    with ground() as place:
        found = [
            run(place, one, options.seconds) for one in ATTACKS if one.name.startswith(options.only)
        ]
    print(json.dumps([one.json() for one in found]) if options.json else "\n".join(table(found)))
    if options.report:
        PAGE.write_text(page(found, options.seconds))
    return int(not all(one.verdict.good for one in found))


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(
        prog="./scripts/faults",
        description=__doc__,
        usage="%(prog)s [options]\n       %(prog)s FLIGHTS.csv [options]",
    )
    words.add_argument("--seconds", type=float, default=60, help="how long each attack publishes")
    names = [one.name for one in ATTACKS]
    engines = sorted({one.partition("-")[0] for one in names})
    words.add_argument(
        "--only",
        choices=[*engines, *names],
        default="",
        metavar="NAME",
        help=f"just these: {', '.join([*engines, *names])}",
    )
    words.add_argument("--json", action="store_true")
    words.add_argument("--report", action="store_true", help=f"write docs/{PAGE.name}")
    return words


def run(place: Ground, attack: Attack, seconds: float) -> Found:
    begun = time.monotonic()
    say(f"{attack.name}: prepares")

    def tell(field: Field) -> None:
        say(
            f"{attack.name}: {time.monotonic() - begun:.0f} s, {field.published:,} messages,"
            f" {len(field.faults)} faults"
        )

    found = Found(attack, asyncio.run(attack.run(place, seconds, tell)))
    say(
        f"{attack.name}: {'good' if found.verdict.good else 'NOT GOOD'} after"
        f" {time.monotonic() - begun:.0f} s",
        end="\n",
    )
    for one in found.verdict.findings():
        print(f"  {one}", file=sys.stderr)
    return found


def say(text: str, end: str = "") -> None:
    """Over the line before, on a terminal; else only what is the last word."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end=end, file=sys.stderr, flush=True)
    elif end:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
