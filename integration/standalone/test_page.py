"""docs/relay.md: its file runs, and its commands and problems are what the page shows."""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from yarl import URL

from integration.destinations.base import Box

from .conftest import Source, running

PAGE = Path(__file__).parents[2] / "docs" / "relay.md"
OpenBox = Callable[[str], AbstractAsyncContextManager[Box]]


def example() -> str:
    [block] = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the file, with its secrets; variables say where these are."""
    (tmp_path / "relay.toml").write_text(example(), encoding="utf-8")
    (tmp_path / "password").write_text("guest")
    (tmp_path / "url").write_text("postgresql://relay@stock-db/stock")
    for name, file in {
        "DATABASES__SHOP__PASSWORD_FILE": "password",
        "DATABASES__SHOP__FORWARDERS__1__PASSWORD_FILE": "password",
        "DATABASES__STOCK__URL_FILE": "url",
    }.items():
        monkeypatch.setenv(f"OUTBOX_RELAY__{name}", str(tmp_path / file))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_check(here: Path) -> None:
    command = [sys.executable, "-m", "faststream_outbox", "relay", "relay.toml", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    shown = PAGE.read_text(encoding="utf-8").partition("$ faststream-outbox relay relay.toml --check\n")[2]
    # The table's lines end with blanks.
    assert re.sub(" +$", "", done.stdout, flags=re.MULTILINE) in shown
    assert (done.returncode, done.stderr) == (0, "")

    (here / "relay.toml").write_text(example().replace("batch_size", "batch_sise"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr in PAGE.read_text(encoding="utf-8")


@pytest.mark.timeout(180)
async def test_the_file_runs(
    source: Source, other_source: Source, open_box: OpenBox, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.load(queue="orders", name="o").backlog(100)
    await source.load(queue="emails", name="e").backlog(30)
    await other_source.load(queue="changes", name="c").backlog(10)
    async with (
        open_box("kafka") as orders,
        open_box("rabbit-exchange") as emails,
        open_box("redis-stream") as changes,
    ):
        (here / "url").write_text(other_source.url)
        for name, value in {
            "HTTP__PORT": "0",
            "DATABASES__SHOP__URL": source.url,
            "DATABASES__SHOP__FORWARDERS__0__TO": f"kafka://{orders.url}",
            "DATABASES__SHOP__FORWARDERS__0__TOPIC": orders.name,
            "DATABASES__SHOP__FORWARDERS__1__TO": str(URL(emails.url).with_password(None)),
            "DATABASES__SHOP__FORWARDERS__1__EXCHANGE": emails.name,
            "DATABASES__SHOP__FORWARDERS__1__ROUTING_KEY": "orders.created",
            "DATABASES__STOCK__FORWARDERS__0__TO": changes.url,
            "DATABASES__STOCK__FORWARDERS__0__STREAM": changes.name,
        }.items():
            monkeypatch.setenv(f"OUTBOX_RELAY__{name}", value)
        async with running(here / "relay.toml", "--drain", ready=None) as relay:
            assert await relay.wait(60) == 0, relay.lines
        assert (len(await orders.read()), len(await emails.read())) == (100, 30)
        await other_source.check(changes)
