"""The code of the guides, as printed: it runs, and what it declares can be declared."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import MetaData, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from faststream_outbox import TestOutboxBroker, make_outbox_table
from faststream_outbox.fastapi import OutboxRouter
from faststream_outbox.metrics.instruments import ALL, Kind

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
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
    await moved_parcels_are_staged(quickstart)


async def moved_parcels_are_staged(names: dict[str, Any]) -> None:
    engine, parcel = create_engine("sqlite://"), names["Parcel"](id=7)
    parcel.__table__.create(engine)
    test = TestOutboxBroker(names["router"].broker)
    try:
        async with test:
            with Session(engine) as session, session.begin():
                session.add(parcel)
                parcel.move("Bremen")
                session.flush()
                parcel.move("Kiel")
            assert [(row.key, row.payload) for row in test.store.rows if row.queue == "parcels"] == [
                ("parcel-7", b'{"moved_to":"Bremen","parcel":7}'),
                ("parcel-7", b'{"moved_to":"Kiel","parcel":7}'),
            ]
    finally:
        event.remove(Session, "after_flush", names["stage_events"])
        engine.dispose()


async def test_the_guide_to_operating(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_page("operating", quickstart, tmp_path)

    assert quickstart["forwarder"].queues == ["orders"]
    health = await quickstart["broker"].health()
    assert (health.is_live, health.is_ready) == (True, False)  # there is no such database
    assert not await quickstart["is_degraded"]()
    quickstart["broker"].check_consumers()


async def test_the_guide_to_observing(quickstart: dict[str, Any], tmp_path: Path) -> None:
    registered = [*REGISTRY._collector_to_names]
    try:
        run_page("observing", quickstart, tmp_path)
        assert "outbox_published" in {name for names in REGISTRY._collector_to_names.values() for name in names}
    finally:
        for collector in {*REGISTRY._collector_to_names} - {*registered}:
            REGISTRY.unregister(collector)


def test_the_guide_to_observing_lists_each_metric() -> None:
    listed = re.findall(
        r"^\| `(outbox_\w+)` \| (\w+) \| ([\w, ]*) \| (.+) \|$", (DOCS / "observing.md").read_text(), re.MULTILINE
    )
    there = [
        (
            each.name + ("_total" if each.kind is Kind.COUNTER else ""),
            each.kind.value,
            ", ".join(each.labels),
            each.text,
        )
        for each in ALL
    ]
    assert listed == there


async def test_the_guide_to_the_page(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_page("page", quickstart, tmp_path)

    paths = quickstart["app"].openapi()["paths"]
    listed = re.search(r"^## REST\n(.+?)```", (DOCS / "page.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert listed
    for path in paths:
        if path.startswith("/outbox/api/"):
            shown = path.removeprefix("/outbox/api/").replace("{letter_id}", "{id}")
            assert f"`{shown}`" in listed[1].replace("GET /outbox/api/", ""), path


async def test_the_guide_to_exactly_once(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_page("exactly-once", quickstart, tmp_path)

    assert quickstart["position_table"].metadata is quickstart["Base"].metadata
    forwarders = quickstart["broker"].forwarders
    assert [forwarder.name for forwarder in forwarders] == ["kafka:orders.v1", "redis:clicks"]
    assert [forwarder.queues for forwarder in forwarders] == [["orders"], ["clicks"]]
    quickstart["broker"].check_consumers()


async def test_the_guide_to_the_inbox(quickstart: dict[str, Any], tmp_path: Path) -> None:
    run_page("inbox", quickstart, tmp_path)

    assert quickstart["inbox_table"].name == "inbox"
    await quickstart["test_billing_once"]()


async def test_the_guide_to_other_packages(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "neighbours"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "neighbours", type(sys)("neighbours"))
        run_page("neighbours", names, tmp_path)
    assert {"Sessions", "get_session", "look_at_the_schema"} <= names.keys()


PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("*/README.md")})
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that GitHub's pages have for headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def test_the_pages_for_builders_stand_apart() -> None:
    assert {"architecture.md", "plans.md", "profiles.md"} <= {page.name for page in (DOCS / "inside").glob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


NAMED_PAGE = re.compile(r"docs/[\w/]+\.md")
NAMED_SECTION = re.compile(r"""(docs/[\w/]+\.md), \\?"([^"\\]+)\\?\"""")
NAMED_BEFORE = re.compile(r"""\"([A-Z][^"\\]+)\" in (docs/[\w/]+\.md)""")


FOLDERS = ("src", "demo", "benchmarks", "integration", "tests", "docker", ".ci")


@pytest.mark.parametrize("folder", FOLDERS)
def test_pages_that_code_names_are_there(folder: str) -> None:
    """Errors and comments send their readers to a page, and some to a section of it."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in {".py", ".sql", ".yaml", ".toml"}:
            continue
        text = path.read_text(encoding="utf-8")
        for name in NAMED_PAGE.findall(text):
            assert (ROOT / name).exists(), f"{path}: {name}"
        sections = NAMED_SECTION.findall(text) + [(name, section) for section, name in NAMED_BEFORE.findall(text)]
        for name, section in sections:
            assert section in headings(ROOT / name), f"{path}: {name}, {section}"


NAMED_FILE = re.compile(r"`([\w/.]+\.(?:py|sql))`")
NOT_OURS = {"shop.py", "servers.py", "billing.py", "env.py", "migrations/env.py"}
"""The programs of the README and the tutorial, and Alembic's configuration."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "profiles.md"], ids=lambda page: page.name)
def test_files_that_pages_name_are_there(page: Path) -> None:
    """A page may leave out the first folders of a path. Profiles name what ran, other packages' files too."""
    files = [path.as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    for name in {*NAMED_FILE.findall(page.read_text(encoding="utf-8"))} - NOT_OURS:
        assert any(file.endswith(f"/{name}") for file in files), name
