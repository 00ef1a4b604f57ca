"""The page in a real browser, with a mouse, with keys alone, and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from integration.demo.test_demo import CHROMIUM_FLAGS, PAGE_MILLISECONDS
from integration.servers.missing import missing

from .served import served_outbox


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if not path:
        missing("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def address(database_url: str) -> Iterator[str]:
    with served_outbox(database_url) as address:
        yield address


@pytest.fixture
def errors() -> list[str]:
    return []


def opened(browser: Browser, address: str, errors: list[str], **options: object) -> Page:
    """A page of which each error in the console, also one of the content security policy, fails the test."""
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(PAGE_MILLISECONDS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in {"error", "warning"} else None)
    page.goto(address)
    return page


def test_a_group_is_replayed_by_buttons(chromium: Browser, address: str, errors: list[str]) -> None:
    page = opened(chromium, address, errors)
    expect(page.get_by_role("heading", level=1)).to_have_text("Standing")
    page.get_by_role("link", name="31", exact=True).click()
    group = page.get_by_role("row").filter(has_text="billing did not answer")
    group.get_by_role("link", name="Replay").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Replay 26 dead letters?")
    page.get_by_label("Why").fill("billing is back")
    page.get_by_role("button", name="Replay 26 dead letters").click()
    expect(page.get_by_role("status")).to_contain_text("Replayed 26 dead letters")
    expect(page.get_by_role("row")).to_have_count(1 + 4)
    page.get_by_role("link", name="Audit log").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("alice@shop.example")
    expect(page.get_by_role("row").nth(1)).to_contain_text("billing is back")
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("row").filter(has_text="invoices")).to_contain_text("26")
    assert not errors


def test_figures_change_while_one_looks(chromium: Browser, address: str, errors: list[str], database_url: str) -> None:
    from .served import run_sql

    page = opened(chromium, address, errors)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    run_sql(database_url, "DELETE FROM outbox WHERE queue LIKE 'emails%'")
    httpx.post(f"{address}api/pauses", json={"forwarder": "emails"}).raise_for_status()
    expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
    expect(page.get_by_role("heading", name="Paused", level=2)).to_be_visible()
    assert not errors


def test_on_a_phone_and_with_keys(chromium: Browser, address: str, errors: list[str]) -> None:
    page = opened(
        chromium, address, errors, viewport={"width": 360, "height": 740}, color_scheme="dark", has_touch=True
    )
    for path in (
        "",
        "queue?name=orders",
        "dead",
        "letters?queue=invoices",
        "letter?id=7",
        "letter?id=9",
        "pauses",
        "audit",
    ):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{path} is wider than the phone"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(20, 24, 22)", "dark"
    page.goto(address)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.goto(f"{address}change?action=discard&queue=imports")
    page.get_by_label("Why").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Discard 3 dead letters")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Discarded 3 dead letters")
    assert not errors


def test_what_is_shipped_asks_no_other_host() -> None:
    import faststream_outbox.admin.page.rendering as shipped

    for path in (*Path(shipped.FOLDER / "static").iterdir(), *Path(shipped.FOLDER / "templates").iterdir()):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", ""), path
