"""The command as a process: its entry points, signals, and a kill in the middle of its work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Run, Terminal

LETTERS = 10_000


def test_the_module_and_the_exit_code(terminal: Terminal, sql: Run) -> None:
    assert terminal.process("check").code == 0
    sql("DROP INDEX outbox_timer_idx")
    said = terminal.process("check", "--json")
    assert (said.code, said.json["agrees"]) == (1, False)
    version = subprocess.run([sys.executable, "-m", "faststream_outbox", "--version"], capture_output=True, text=True)
    assert version.stdout.startswith("faststream-outbox ")


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('typer', 'rich') else find(name, *a)\n"
        "from faststream_outbox.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "faststream-outbox: typer and rich not installed; the command line needs the extra 'cli':\n"
        "    pip install '.[cli]'    # in a checkout of its repository; or the wheel's file name with [cli]\n"
    )


def places(sql: Run) -> tuple[int, int, int]:
    """How many messages are alive, how many are letters, and how many there are of different identity."""
    [(alive, letters, identities)] = sql(
        "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_dlq), count(DISTINCT idempotency_key) "
        "FROM (SELECT idempotency_key FROM outbox UNION ALL SELECT idempotency_key FROM outbox_dlq) AS everything"
    )
    return alive, letters, identities


def ended_in_the_middle(terminal: Terminal, sql: Run, how: signal.Signals) -> subprocess.Popen[str]:
    """Begin to replay, and end the process when some of the letters are replayed and others are not."""
    command = terminal.program("dead", "replay", "--queue", "orders", "--yes", "--batch", "20")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not sql("SELECT FROM outbox LIMIT 1"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
    os.kill(process.pid, how)
    return process


@pytest.mark.usefixtures("control_table")
def test_10_000_replays_killed_in_the_middle(terminal: Terminal, sql: Run, bury: Callable[..., Any]) -> None:
    bury(count=LETTERS)
    process = ended_in_the_middle(terminal, sql, signal.SIGKILL)
    process.communicate()
    # The server may still be at the last transaction.
    deadline = time.monotonic() + 30
    while sql(
        "SELECT FROM pg_stat_activity WHERE application_name = 'faststream-outbox' AND datname = current_database()"
    ):
        assert time.monotonic() < deadline
    alive, letters, identities = places(sql)
    assert alive > 0
    assert letters > 0
    assert (alive + letters, identities) == (LETTERS, LETTERS), "each is either replayed or still a letter"
    log = "SELECT action, what ->> 'queue', affected FROM outbox_control ORDER BY id"
    assert sql(log) == [("replay", "orders", alive)], "the log counts what was done"
    again = terminal.run("dead", "replay", "--queue", "orders", "--yes", "--json").json
    assert (again["selected"], again["done"], again["left"]) == (letters, letters, 0)
    assert places(sql) == (LETTERS, 0, LETTERS)
    assert sql(log) == [("replay", "orders", alive), ("replay", "orders", letters)]


def test_ctrl_c_in_the_middle(terminal: Terminal, sql: Run, bury: Callable[..., Any]) -> None:
    bury(count=LETTERS)
    process = ended_in_the_middle(terminal, sql, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on with the rest" in errors
    assert "Traceback" not in errors
    alive, letters, identities = places(sql)
    assert (alive + letters, identities) == (LETTERS, LETTERS)
    assert letters > 0


def test_a_connection_that_breaks_in_the_middle(terminal: Terminal, sql: Run, bury: Callable[..., Any]) -> None:
    bury(count=LETTERS)
    command = terminal.program("dead", "replay", "--queue", "orders", "--yes", "--batch", "20")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not sql("SELECT FROM outbox LIMIT 1"):
        assert time.monotonic() < deadline
    sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'faststream-outbox'")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the same command goes on with the rest" in errors
    assert "Traceback" not in errors
    alive, letters, identities = places(sql)
    assert (alive + letters, identities) == (LETTERS, LETTERS)


def test_what_fails_again_meanwhile_is_not_replayed_again(
    terminal: Terminal, sql: Run, bury: Callable[..., Any]
) -> None:
    """A handler that still fails makes a letter of each message: the command ends all the same."""
    bury(count=30)
    sql(
        "CREATE FUNCTION fails_again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO outbox_dlq (id, queue, idempotency_key, payload, attempts_count, deliveries_count, created_at, "
        "outbox, failed_at, failure_reason) VALUES (NEW.id + 500000, NEW.queue, NEW.idempotency_key, NEW.payload, 1, "
        "1, now(), 'public.outbox', clock_timestamp(), 'rejected'); RETURN NULL; END $$"
    )
    sql("CREATE TRIGGER fails_again AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION fails_again()")
    said = terminal.process("dead", "replay", "--all", "--yes", "--batch", "10", "--json")
    assert said.code == 0
    assert (said.json["done"], said.json["left"]) == (30, 30)
