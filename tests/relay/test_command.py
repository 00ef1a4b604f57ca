"""The command: what it prints and how it exits, without a server."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from faststream_outbox.cli import relay as command
from faststream_outbox.cli.app import app

from .conftest import Write

GOOD = """
[databases.shop]
url = "postgresql://relay@database/shop"
[[databases.shop.forwarders]]
queues = ["orders", "refunds"]
to = "kafka://kafka:9092"
topic = "orders.v1"
"""


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["relay", *map(str, arguments)], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_check_lists_what_is_carried(write: Write) -> None:
    file = write(GOOD)
    result = run(file, "--check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.split() == ["database", "queues", "forwarder", "shop", "orders,", "refunds", "kafka:orders.v1"]
    assert json.loads(run(file, "--check", "--json").stdout) == [
        {"database": "shop", "queues": ["orders", "refunds"], "forwarder": "kafka:orders.v1"}
    ]


@pytest.mark.parametrize("arguments", [["--check"], [], ["--processes", "2"], ["--drain"]])
def test_a_wrong_file_starts_nothing(write: Write, arguments: list[str]) -> None:
    file = write(GOOD.replace("topic", "topik") + "lanes = 0\n")
    result = run(file, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    place = f"error: {file}: databases.shop.forwarders[0]"
    assert result.stderr == f"{place}.topik: unknown; did you mean topic?\n"
    found = json.loads(run(file, *arguments, "--json").stderr)
    assert found["problems"] == [
        {"place": "databases.shop.forwarders[0].topik", "problem": "unknown; did you mean topic?"}
    ]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--connect"], "error: --connect: goes with --check\n"),
        (["--within", "3"], "error: --within: goes with --drain\n"),
    ],
)
def test_options_that_need_another(write: Write, arguments: list[str], error: str) -> None:
    result = run(write(GOOD), *arguments)
    assert (result.exit_code, result.stderr) == (2, error)


def test_metrics_without_their_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    result = run(write(f"[http]\nport = 1\nmetrics = true\n{GOOD}"), "--check")
    assert result.exit_code == 2
    assert "http.metrics: needs the extra 'prometheus' of this package" in result.stderr


def test_without_its_extra_it_says_what_to_install(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NEEDED", "nothing_of_this_name")
    result = run(write(GOOD), "--check")
    assert result.exit_code == 2
    assert "the relay needs the extra 'relay'" in result.stderr
