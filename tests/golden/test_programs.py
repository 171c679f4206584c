"""The golden programs type-check, their mistakes do not, in both checkers; and their own tests
pass."""

import subprocess
import sys
from pathlib import Path

import pytest
from examples.shop import Invoice, Order, invoices, orders, send_receipt
from examples.shop import app as shop

from busline.testing import in_memory

ROOT = Path(__file__).parents[2]
WRONG = '''"""Each line must be refused."""
from busline import Topic
from examples.java import OrderPaid, OrderPlaced, events
from examples.shop import Invoice, Order, app, invoices, orders, send_receipt

Topic("o", Order, key=lambda o: o.nope)
@app.subscriber(orders, publish=invoices)
async def w1(order: Order) -> Order: return order
@app.subscriber(events.only(OrderPaid))
async def w2(event: OrderPlaced) -> None: ...
async def main() -> None:
    await app.publish(orders, Invoice(order_id="1", cents=1))
    await app.publish(events, Order(id="1", email="", cents=1))
    await send_receipt.enqueue("x")
    send_receipt.options(dealy=5)
'''
LINES = {6, 7, 9, 12, 13, 14, 15}


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    return path


def refused(output: str) -> set[int]:
    """The lines of wrong.py that a checker complains about; a decorator's complaint may stand at
    the function."""
    found = {
        int(line.split("wrong.py:")[1].split(":")[0])
        for line in output.splitlines()
        if "wrong.py:" in line and "error" in line
    }
    return {line - 1 if line in (8, 10) else line for line in found}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_mypy_accepts_the_programs_and_refuses_each_mistake(wrong: Path) -> None:
    good = run("mypy", "--strict", "examples/shop.py", "examples/java.py", "examples/tenants.py")
    assert good.returncode == 0, good.stdout

    assert refused(run("mypy", "--strict", str(wrong)).stdout) == LINES


def test_pyright_accepts_the_programs_and_refuses_each_mistake(wrong: Path) -> None:
    good = run("pyright", "examples/shop.py", "examples/java.py", "examples/tenants.py")
    assert good.returncode == 0, good.stdout

    project = wrong.with_name("pyrightconfig.json")
    project.write_text(
        f'{{"include": ["wrong.py"], "extraPaths": ["{ROOT}", "{ROOT}/src"], "typeCheckingMode":'
        ' "strict", "pythonVersion": "3.11"}'
    )
    assert (
        refused(run("pyright", "--pythonpath", sys.executable, "-p", str(project)).stdout) == LINES
    )


async def test_an_order_becomes_an_invoice() -> None:
    async with in_memory(shop) as bus:
        await bus.publish(orders, Order(id="a1", email="a@b.c", cents=500))
        assert bus.published(invoices) == [Invoice(order_id="a1", cents=500)]
        assert bus.enqueued(send_receipt) == [{"email": "a@b.c", "cents": 500}]
        await bus.advance(60)
