"""``faststream-outbox page`` as a program."""

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from faststream_outbox.cli.app import app
from integration.servers.process import run

from .served import fill, make_tables

PASSWORD = re.compile(r"for this password: (\S+)")


@contextmanager
def page(url: str, *options: str) -> Iterator[tuple[str, str]]:
    """A page on a port that is free; yields its address, and what it has said."""
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [sys.executable, "-m", "faststream_outbox", "page", "--port", "0", "--dsn", dsn, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = "".join(process.stderr.readline() for _ in range(3))
        found = re.search(r"http://\S+/(?=;)", said)
        assert found, said + process.stderr.read()
        yield found[0], said
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(30)


def test_with_a_password_and_a_name(database_url: str) -> None:
    run(make_tables(database_url))
    fill(database_url)
    with page(database_url) as (address, said), httpx.Client(base_url=address) as client:
        assert "Only this machine reaches it." in said
        password = PASSWORD.search(said)
        assert password
        for path in ("", "api/overview", "api/openapi.json", "static/page.css", "letter?id=7"):
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert "Basic" in answer.headers["www-authenticate"]
        assert client.get("", auth=("bob", "wrong")).status_code == 401
        client.auth = ("bob", password[1])
        named = base64.b64encode(f"Jürgen:{password[1]}".encode()).decode()
        assert "Jürgen" in client.get("", headers={"authorization": f"Basic {named}"}, auth=None).text
        for wrong in ("Basic !", "Basic /w==", f"Bearer {named}", "Basic"):
            assert client.get("", headers={"authorization": wrong}, auth=None).status_code == 401, wrong
        assert "<h1>Standing</h1>" in client.get("").text
        done = client.post("api/dead-letters/discard", json={"queue": "imports", "dry_run": False})
        assert done.json()["done"] == 3
        assert client.get("api/audit").json()[0]["who"] == "bob"
        assert "/dead-letters/replay" in client.get("api/openapi.json").text
        for host in ("other.example", "127.0.0.1.other.example", "[::2]:80"):
            assert client.get("", headers={"host": host}).status_code == 400, "a name that leads here"
        for host in ("localhost", "[::1]:8077"):
            assert client.get("", headers={"host": host}).status_code == 200


def test_unguarded_and_read_only(database_url: str) -> None:
    with page(database_url, "--unguarded", "--read-only") as (address, said), httpx.Client(base_url=address) as client:
        assert "It asks for no password." in said
        assert "read-only" in client.get("").text
        answer = client.post("api/dead-letters/discard", json={"all": True, "dry_run": False})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--host", "0.0.0.0"], "others reach it there: give --token-file, or say --unguarded"),
        (["--token-file", "/nowhere"], "--token-file: /nowhere cannot be read"),
        (["--token-file", "short"], "must have 16 characters or more"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: list[str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("secret")
    said = CliRunner().invoke(app, ["page", "--dsn", "postgresql://127.0.0.1:1/x", *options])
    assert said.exit_code == 2
    assert text in said.stderr


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faststream_outbox.cli.page.NEEDED", ("fastapi", "no_such_package"))
    said = CliRunner().invoke(app, ["page", "--dsn", "postgresql://127.0.0.1:1/x"])
    assert said.exit_code == 2
    assert "no_such_package not installed; the page needs the extra 'page'" in said.stderr
