import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from faststream_outbox.cli.app import app


@dataclass(frozen=True)
class Said:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """Of a command with --json."""
        return str(json.loads(self.err)["error"])


@dataclass(frozen=True)
class Terminal:
    """Where an operator types commands, with a database that all are about."""

    dsn: str

    def run(self, *arguments: str, dsn: str | None = None) -> Said:
        environment = {"OUTBOX_DSN": dsn or self.dsn, "COLUMNS": "200"}
        result = CliRunner().invoke(app, arguments, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    def program(self, *arguments: str) -> list[str]:
        """The command line of a process of its own."""
        return [sys.executable, "-m", "faststream_outbox", *arguments, "--dsn", self.dsn]

    def process(self, *arguments: str) -> Said:
        done = subprocess.run(self.program(*arguments), capture_output=True, text=True, timeout=100)
        return Said(done.returncode, done.stdout, done.stderr)


Run = Callable[..., list[Any]]


@pytest.fixture
def control_table(terminal: Terminal, sql: Run) -> str:
    """Create the control table, as ddl create prints it."""
    for statement in terminal.run("ddl", "create", "--control-table", "outbox_control", "--json").json:
        if "outbox_control" in statement:
            sql(statement)
    return "outbox_control"


@pytest.fixture
def terminal(database_url: str) -> Terminal:
    return Terminal(database_url)


@pytest.fixture
def sql(database_url: str) -> Iterator[Run]:
    """Runs a statement as the owner, and returns its rows."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:

        def run(statement: str, *parameters: Any) -> list[Any]:
            cursor = connection.execute(statement, parameters or None)  # type: ignore[arg-type]
            return [] if cursor.description is None else cursor.fetchall()

        yield run


@pytest.fixture
def put(sql: Run) -> Callable[..., None]:
    def put(queue: str = "orders", *, count: int = 1, age: str = "0 s") -> None:
        sql(
            "INSERT INTO outbox (queue, key, idempotency_key, payload, headers, created_at) "
            """SELECT %s, CAST(n AS text), 'id-' || n, convert_to('{"n": ' || n || '}', 'UTF8'), """
            """'{"content-type": "application/json"}', now() - CAST(%s AS interval) FROM generate_series(1, %s) AS n""",
            queue,
            age,
            count,
        )

    return put


@pytest.fixture
def bury(sql: Run) -> Callable[..., None]:
    """Put dead letters into the dead-letter table."""

    def bury(
        queue: str = "orders", *, count: int = 1, exception: str = "ValueError: no", reason: str = "retries_exhausted"
    ) -> None:
        sql(
            "INSERT INTO outbox_dlq (id, queue, key, idempotency_key, payload, headers, attempts_count, "
            "deliveries_count, created_at, outbox, failed_at, failure_reason, last_exception) "
            """SELECT n + 1000 * (SELECT count(*) FROM outbox_dlq), %s, CAST(n AS text), 'id-' || n, """
            """convert_to('{"n": ' || n || '}', 'UTF8'), '{"content-type": "application/json"}', 3, 3, """
            "now() - interval '1 hour', 'public.outbox', now() - interval '1 min' * (1 + mod(n, 30)), %s, %s "
            "FROM generate_series(1, %s) AS n",
            queue,
            reason,
            exception,
            count,
        )

    return bury
