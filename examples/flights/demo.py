"""`./scripts/demo`: flights through a worker that is killed and started again; then the broken rows, mended and redriven."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from busline.core.ports import Inspector

HERE = Path(__file__).parent
APP = "examples.flights.app:app"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "flights.csv"
    if not path.exists():
        sys.exit(f"'{path}': expected a CSV of flights, got no file. Name flights.csv or flights.csv.gz.")
    with tempfile.TemporaryDirectory(prefix="busline-demo-") as folder:
        settle_in(folder)
        asyncio.run(demo(path))


def settle_in(folder: str) -> None:
    """Every process of the demo works on the same files."""
    os.environ["BUSLINE_STREAMS"] = os.environ["BUSLINE_JOBS"] = f"sqlite:///{folder}/bus.db"
    os.environ["FLIGHTS_STATISTICS"] = f"{folder}/statistics.db"
    os.environ.pop("FLIGHTS_MENDED", None)


async def demo(path: Path) -> None:
    from examples.flights.expected import expected
    from examples.flights.producer import produce

    want, begun = expected(path), time.monotonic()
    print(f"1. Publishing the flights of {path.name} to the topic 'flights' ...")
    published = await produce(path)
    print(f"   {published} records, in one file, no server.\n\n2. A worker starts, and is killed with SIGKILL in the middle.")
    await watch(worker(), published, kill_at=published // 3)
    print("   Killed. Nothing says goodbye; the records it had in hand are still in the file.\n\n3. Another worker goes on where it stopped.")
    await watch(worker(), published)
    print(f"\n4. {want['broken']} rows are broken: an airport wrote its delays as text. They are in the dead letters, byte for byte:")
    show_dead()
    print("\n5. The model is mended; the same bytes go to the same handler: busline dead redrive --all")
    os.environ["FLIGHTS_MENDED"] = "1"
    busline("dead", "redrive", APP, "--all")
    await watch(worker(), published)
    await asyncio.to_thread(summary, path, published, time.monotonic() - begun)


def worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "busline", "run", APP, "--until-idle", "--log-level", "warning"], stderr=subprocess.DEVNULL)


def busline(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "busline", *words], check=True, capture_output=True, text=True).stdout


async def watch(process: subprocess.Popen[bytes], published: int, kill_at: int | None = None) -> None:
    """Shows what happens until the process ends; kills it once so many records are finished."""
    from examples.flights.app import app

    finished, since = 0, time.monotonic()
    async with app:
        inspector = app.bus().engines.all()[0].inspector
        while True:
            ended = process.poll() is not None
            before, finished = finished, published - await behind(inspector, published)
            rate = (finished - before) / max(time.monotonic() - since, 0.01)
            since = time.monotonic()
            line(f"   {finished:>7}/{published} records  {rate:>7.0f}/s  {await figures(inspector)}", last=ended)
            if ended:
                break
            if kill_at is not None and finished >= kill_at:
                process.send_signal(signal.SIGKILL)
            await asyncio.sleep(0.02 if kill_at is not None else 0.2)
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"the worker ended with status {process.returncode}")


async def behind(inspector: Inspector, published: int) -> int:
    """How many records are not finished; all of them before the group exists."""
    return next((one.behind for one in await inspector.lag() if one.topic == "flights"), published)


async def figures(inspector: Inspector) -> str:
    counts = await inspector.counts()
    apologies = counts["apologise"].handled if "apologise" in counts else 0
    retried = sum(one.retried for one in counts.values())
    return f"{apologies:>4} apologies  {retried} retried  {len(await inspector.dead(limit=100_000))} dead"


def line(text: str, *, last: bool) -> None:
    """Redraws one line on a terminal; elsewhere only the last one is printed."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="\n" if last else "", flush=True)
    elif last:
        print(text, flush=True)


def show_dead() -> None:
    for letter in busline("dead", "list", APP, "--limit", "3").splitlines():
        print(f"   {letter[:200]}")


def summary(path: Path, published: int, seconds: float) -> None:
    from examples.flights.expected import expected
    from examples.flights.verify import differences

    want, wrong = expected(path), differences(path)
    print("\nSummary")
    for carrier, one in want["carriers"].items():
        average = one["minutes_late"] / max(one["arrived"], 1)
        print(f"   {carrier}  {one['flights']:>6} flights  {one['cancelled']:>5} cancelled  {average:>6.1f} minutes late on average")
    print(f"   {published} records, {len(want['late'])} apologies, {want['broken']} broken rows mended, one SIGKILL, {seconds:.1f} s.")
    if wrong:
        sys.exit("   NOT as computed straight from the file:\n   " + "\n   ".join(wrong))
    print("   Every figure is equal to the one computed straight from the file. Nothing was lost, nothing counted twice.")


if __name__ == "__main__":
    main()
