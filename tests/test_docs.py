"""The code of the guides, as printed: it runs, and what it declares can be declared."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import make_outbox_table
from faststream_outbox.fastapi import OutboxRouter

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def router() -> OutboxRouter:
    engine = create_async_engine("postgresql+asyncpg://localhost/nowhere")
    return OutboxRouter(engine, outbox_table=make_outbox_table(MetaData()))


def test_the_guide_to_forwarders(router: OutboxRouter) -> None:
    blocks = BLOCK.findall((DOCS / "forwarders.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"router": router}
    for block in blocks:
        exec(compile(block, "forwarders.md", "exec"), names)

    queues = {queue for forwarder in router.broker.forwarders for queue in forwarder.queues}
    assert queues == {"orders", "emails", "clicks", "paid", "refunded", "invoices", "shipments", "users"}
    router.broker.check_consumers()
    assert {"orders-to-redis", "kafka:shipments", "nats:payments"} <= {each.name for each in router.broker.forwarders}


@pytest.fixture
def quickstart(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the README's first program, which some pages continue."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://database.invalid/shop")
    # Annotations are looked up in the module that a class says it is from.
    monkeypatch.setitem(sys.modules, "shop", type(sys)("shop"))
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(BLOCK.findall(README.read_text(encoding="utf-8"))[0], "README.md", "exec"), names)
    return names


def run_page(page: str, names: dict[str, Any], folder: Path) -> None:
    """Run all blocks of a page as one program, from a file, since FastStream reads its callers' source."""
    program = folder / f"{page}.py"
    program.write_text("\n\n".join(BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf-8"))), encoding="utf-8")
    exec(compile(program.read_text(encoding="utf-8"), program, "exec"), names)


async def test_the_guide_with_fastapi(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_page("fastapi", quickstart, tmp_path)

    subscribers = quickstart["router"].broker.subscribers
    queues = {queue for subscriber in subscribers for queue in subscriber.queues}
    assert queues == {"orders", "shipped", "billed", "emails", "pings", "clicks", "payments"}
    quickstart["router"].broker.check_consumers()
    await quickstart["test_shipping_an_order"]()


async def test_the_guide_to_operating(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_page("operating", quickstart, tmp_path)

    assert quickstart["forwarder"].queues == ["orders"]
    assert not await quickstart["is_healthy"]()  # there is no such database
    quickstart["broker"].check_consumers()


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
