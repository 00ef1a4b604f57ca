"""``python -m demo`` as a person meets it: a child process, a real browser on its page, and Ctrl-C at the end."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from integration.servers.missing import missing

CHECKOUT = Path(__file__).parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
PAGE_MILLISECONDS = 20_000

PLACE = "Place order"
FAIL = "Place one that fails"
MARKUP = "<img src=x onerror=alert(1)>"

# Chromium as root in a closed network: no sandbox, and none of its own look-ups.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=PAGE_MILLISECONDS)


@dataclass
class Demo:
    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str | None:
        """The address in the banner, printed when the demo is ready."""
        match = re.search(r"Open\s+(http://\S+)", self.output)
        return match and match[1]

    def ready(self) -> str:
        wait_until(lambda: self.url or self.process.poll() is not None, START_SECONDS, lambda: self.output)
        assert self.url, f"the demo ended while it started:\n{self.output}"
        return self.url

    def server_processes(self) -> list[psutil.Process]:
        """PostgreSQL and its children: they live in a session of their own, and are known by their folder."""
        return [
            one
            for process in psutil.process_iter(["cmdline"])
            if process.pid != self.process.pid
            and any(str(self.folder) in part for part in process.info["cmdline"] or ())
            for one in (process, *process.children(recursive=True))
        ]

    def interrupt(self) -> int:
        """Press Ctrl-C: a terminal sends SIGINT to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def running_demo() -> Iterator[Demo]:
    # A short folder, since the path of PostgreSQL's socket in it may have at most 107 bytes.
    with TemporaryDirectory(prefix="obx", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        log = folder / "output"
        own_servers = {"DATABASE_URL", "KAFKA_BOOTSTRAP"}
        environment = {key: value for key, value in os.environ.items() if key not in own_servers}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "demo", "--port", "0"],
                cwd=CHECKOUT,
                env=environment | {"TMPDIR": name, "PYTHONUNBUFFERED": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        demo = Demo(process, folder, log)
        try:
            yield demo
        finally:
            if process.poll() is None:
                demo.interrupt()


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo() as running:
        running.ready()
        yield running


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
def page(demo: Demo, chromium: Browser) -> Iterator[Page]:
    """The demo's page, told of everything so far. An error in its console fails the test."""
    errors: list[str] = []
    page = chromium.new_page()
    page.set_default_timeout(PAGE_MILLISECONDS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in {"error", "warning"} else None)
    page.goto(demo.ready())
    expect(page.locator("#connection")).to_have_text("live")
    expect(count(page, "topic")).to_have_text(re.compile(r"\d+"))  # the numbers come last
    yield page
    page.close()
    # The browser itself reports a declined payment; the test that provokes it wants it.
    assert [error for error in errors if "402 (Payment Required)" not in error] == []


def count(page: Page, name: str) -> Locator:
    return page.locator(f"[data-count={name}]")


def counts(page: Page) -> dict[str, int]:
    return {name: int(count(page, name).inner_text()) for name in ("orders", "outbox", "parcels", "topic")}


def slot(track: Locator, name: str) -> Locator:
    return track.locator(f"[data-slot={name}]")


def slots(track: Locator) -> dict[str | None, str | None]:
    return {
        one.get_attribute("data-slot"): one.get_attribute("data-state") for one in track.locator("[data-slot]").all()
    }


def idempotency_key(track: Locator, name: str) -> str:
    return slot(track, name).locator(".chip").inner_text()


def post(page: Page, button: str) -> Locator:
    """Press a button, and return the track of the order that the shop answers with."""
    with page.expect_response("**/orders?*") as response:
        page.get_by_role("button", name=button).click()
    answer = response.value.json()
    order = answer.get("detail", answer)["order_id"]
    track = page.locator(f'.track[data-order="{order}"]')
    expect(track).to_be_visible()
    return track


def delivered(track: Locator) -> Locator:
    expect(track).to_have_attribute("data-state", "delivered")
    # Its rows are deleted when the delivery is known to have worked, which may be seen a moment after the delivery.
    expect(track.locator('[data-state="left"]')).to_have_count(2)
    return track


def test_an_order_is_seen_in_all_four_stages(page: Page) -> None:
    track = delivered(post(page, PLACE))

    assert slots(track) == {
        "order": "here",
        "staged-packing": "left",
        "staged-orders": "left",
        "parcel": "here",
        "arrived": "here",
    }
    expect(slot(track, "order")).to_contain_text("packed")
    expect(slot(track, "arrived")).to_contain_text("orders.v1")
    expect(slot(track, "arrived")).to_contain_text("Ada")
    assert idempotency_key(track, "arrived") == idempotency_key(track, "staged-orders")
    assert idempotency_key(track, "parcel") == idempotency_key(track, "staged-packing")
    assert idempotency_key(track, "arrived") != idempotency_key(track, "parcel")
    expect(page.get_by_role("status")).to_contain_text("arrived from Kafka")


def test_a_rolled_back_order_leaves_nothing(page: Page) -> None:
    before = counts(page)
    failed = post(page, FAIL)
    expect(failed).to_have_attribute("data-state", "rolled-back")

    # What the failed transaction had published, if anything, would arrive before this: one customer, one key, in order.
    delivered(post(page, PLACE))
    for name in ("orders", "parcels", "topic"):
        expect(count(page, name)).to_have_text(str(before[name] + 1))
    expect(count(page, "outbox")).to_have_text("0")

    assert set(slots(failed).values()) == {"none"}
    expect(failed).to_contain_text("rolled back")
    expect(failed.locator(".chip")).to_have_count(0)
    assert counts(page) == {name: before[name] + 1 for name in ("orders", "parcels", "topic")} | {"outbox": 0}


def test_slow_motion_keeps_the_messages_in_the_table(page: Page) -> None:
    page.get_by_role("switch", name="Slow motion").check()
    track = delivered(post(page, PLACE))
    for name in ("staged-packing", "staged-orders"):
        expect(slot(track, name)).to_contain_text(re.compile(r"left after \d+\.\d s"))


def test_what_a_person_types_is_never_read_as_html(page: Page) -> None:
    page.get_by_label("Customer").fill(MARKUP)
    track = delivered(post(page, PLACE))
    expect(track.locator(".track-what")).to_contain_text(MARKUP)
    expect(slot(track, "arrived")).to_contain_text(MARKUP)
    expect(track.locator("img")).to_have_count(0)


def test_a_page_that_opens_later_is_told_what_happened(page: Page) -> None:
    order = delivered(post(page, PLACE)).get_attribute("data-order")
    page.reload()
    delivered(page.locator(f'.track[data-order="{order}"]'))


@pytest.mark.parametrize("width", [400, 760, 1280])
def test_the_page_fits_its_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.get_by_label("Customer").fill("W" * 40)
    page.get_by_label("Item").fill("W" * 40)
    delivered(post(page, PLACE))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_form_is_usable_by_keyboard_and_by_name(page: Page) -> None:
    page.get_by_label("Customer").focus()
    for name in ("Item", "Quantity", "Slow motion", PLACE, FAIL):
        page.keyboard.press("Tab")
        role = {"Quantity": "spinbutton", "Slow motion": "switch", PLACE: "button", FAIL: "button"}.get(name, "textbox")
        expect(page.get_by_role(role, name=name)).to_be_focused()


@pytest.mark.parametrize("path", ["/", "/healthz", "/events", "/static/page.js"])
def test_foreign_hosts_are_refused(demo: Demo, path: str) -> None:
    """A page of theirs could have its name point here, and then read what the shop shows, and place orders."""
    url = f"{demo.ready()}{path}"
    for host in ("shop.example", "127.0.0.1.shop.example:8000", "localhost.shop.example", "", "[", "x@localhost@y"):
        assert httpx.get(url, headers={"Host": host}).status_code == 421, host


def test_names_of_this_machine_are_served(demo: Demo) -> None:
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:8000", "10.1.2.3:8000"):
        assert httpx.get(f"{demo.ready()}/healthz", headers={"Host": host}).status_code == 200, host


def test_the_document_is_there_as_yaml(demo: Demo) -> None:
    document = httpx.get(f"{demo.ready()}/asyncapi.yaml").raise_for_status().text
    assert "address: packing" in document
    assert "address: orders.v1" in document, "where the forwarder sends"


def test_ctrl_c_stops_everything(chromium: Browser) -> None:
    with running_demo() as demo:
        url = demo.ready()
        assert httpx.get(f"{url}/healthz").raise_for_status().json() == {"ok": True}
        # An open page holds a response that never ends by itself.
        page = chromium.new_page()
        page.goto(url)
        expect(page.locator("#connection")).to_have_text("live")
        servers = demo.server_processes()
        assert servers

        assert demo.interrupt() == 0
        assert "Traceback" not in demo.output
        assert "ERROR" not in demo.output
        assert "Stopped" in demo.output
        assert [process for process in servers if is_alive(process)] == []
        assert list(demo.folder.glob("outbox-demo-*")) == []
        page.close()


def test_ctrl_c_while_it_starts() -> None:
    with running_demo() as demo:
        wait_until(lambda: "live demo" in demo.output, START_SECONDS, lambda: demo.output)
        assert demo.interrupt() == 0
        assert "Traceback" not in demo.output
        assert [process for process in demo.server_processes() if is_alive(process)] == []


def test_a_port_in_use_is_told_before_anything_is_started(demo: Demo) -> None:
    port = demo.ready().rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "demo", "--port", port], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert port in second.stderr
    assert "Traceback" not in second.stderr
    assert second.stdout == ""


def is_alive(process: psutil.Process) -> bool:
    # Where nobody collects orphans, an ended process keeps its entry.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], Any], seconds: float, explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{explain()}"
        time.sleep(0.05)
