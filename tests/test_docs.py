"""The code of the guides, as printed: it runs, and what it declares can be declared."""

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import make_outbox_table
from faststream_outbox.fastapi import OutboxRouter

DOCS = Path(__file__).parents[1] / "docs"
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


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
