"""The night of docs/page.md, as an operator clicks through it."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import make_url

from .served import run_sql, served_outbox
from .test_browser import chromium, opened

__all__ = ("chromium",)

DOCUMENT = Path(__file__).parents[2] / "docs" / "page.md"
STORY = "## From a stuck queue"
STEP = re.compile(r"^\| `([^`|]+)` \| (`.+`) \|$", re.MULTILINE)


def steps(part: str) -> list[tuple[str, list[str]]]:
    return [(click, re.findall(r"`([^`]+)`", says)) for click, says in STEP.findall(part)]


def parts() -> list[list[tuple[str, list[str]]]]:
    """The tables of the story: what is clicked, and what the page says then."""
    story = DOCUMENT.read_text(encoding="utf-8").partition(STORY)[2]
    found = [steps(part) for part in re.split(r"\n\n(?=[A-Z])", story)]
    return [part for part in found if part]


def walk(page: Page, part: list[tuple[str, list[str]]]) -> None:
    for click, says in part:
        button = page.get_by_role("button", name=click, exact=True)
        page.get_by_role("link", name=click, exact=True).or_(button).first.click()
        for text in says:
            expect(page.locator("main")).to_contain_text(text)


@pytest.fixture
def address(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("faststream_outbox.admin.page.security.LOOK_SECONDS", 2.0)
    monkeypatch.setattr("faststream_outbox.admin.doctor.CHECK_SECONDS", 1.0)
    with served_outbox(database_url) as address:
        # The queue of the forwarder is consumed.
        run_sql(database_url, "DELETE FROM outbox WHERE queue LIKE 'emails%'")
        yield address


def test_from_a_stuck_queue_to_its_cause_and_back(chromium: Browser, address: str, database_url: str) -> None:
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    stuck, examined, replayed = parts()
    assert (len(stuck), len(examined), len(replayed)) == (2, 3, 4)
    page = opened(chromium, f"{address}pauses", [])
    with psycopg.connect(plain) as migration, psycopg.connect(plain) as consumer, ThreadPoolExecutor(1) as pool:
        try:
            migration.execute("ALTER TABLE outbox ADD COLUMN note text")
            waiting = pool.submit(consumer.execute, "SELECT FROM outbox")
            while not migration.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
                time.sleep(0.02)
            walk(page, stuck)
        finally:
            migration.rollback()
        waiting.result()
        consumer.rollback()
    run_sql(database_url, "DELETE FROM outbox WHERE queue = 'orders'")
    walk(page, examined)
    walk(page, replayed[:-1])
    # Their consumer has taken them.
    run_sql(database_url, "DELETE FROM outbox WHERE queue = 'invoices'")
    walk(page, replayed[-1:])
