"""docs/command-line.md, as an operator reads it: each command runs, ends as the page says, and prints what it shows."""

import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import make_url

from .conftest import Run, Terminal

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = "faststream-outbox"
STORY = "## From a stuck queue"


class Typed(NamedTuple):
    """A command of the page."""

    arguments: list[str]
    code: int
    first_line: str
    """Of what the page shows of its output; empty where it shows none."""


def typed(page: str) -> Iterator[Typed | None]:
    """Yield the commands of a page in their order; None where psql has ended the session that blocks."""
    for block in BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            command, _, comment = line.partition("  # exits with ")
            program, *arguments = shlex.split(command)
            if program == "psql":
                yield None
            elif program == PROGRAM:
                yield Typed(arguments, int(comment or 0), output.partition("\n")[0])
            else:
                assert program in {"pip", "export"}, line


def words(text: str) -> str:
    return " ".join(text.split())


def run(terminal: Terminal, command: Typed) -> None:
    said = terminal.run(*command.arguments)
    assert said.code == command.code, (command, said)
    assert words(command.first_line) in words(f"{said.out}\n{said.err}"), (command, said)


@pytest.fixture
def shop(sql: Run, put: Callable[..., None], bury: Callable[..., None], control_table: str) -> None:
    """The outbox of the page."""
    put("orders", count=12, age="1 hour")
    put("reminders")
    sql("UPDATE outbox SET next_attempt_at = now() + interval '1 hour' WHERE queue = 'reminders'")
    bury("invoices", count=26, exception="TimeoutError: billing did not answer for order 1")
    sql("UPDATE outbox_dlq SET key = 'c1'")
    bury("invoices", count=14, exception="KeyError: 'customer'")


def pages() -> tuple[str, str]:
    before, found, after = PAGE.read_text(encoding="utf-8").partition(STORY)
    assert found
    return before, after


@pytest.mark.usefixtures("shop")
def test_the_commands(terminal: Terminal) -> None:
    commands = [*typed(pages()[0])]
    assert len(commands) > 15
    for command in commands:
        assert command is not None
        run(terminal, command)


@contextmanager
def a_migration_that_was_left_open(url: str) -> Iterator[Callable[[], None]]:
    """A session that has locked the table, and a consumer that waits for it; yields what ends the former."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as migration, psycopg.connect(plain) as consumer, ThreadPoolExecutor(1) as pool:
        migration.execute("ALTER TABLE outbox ADD COLUMN note text")
        waiting = pool.submit(consumer.execute, "SELECT FROM outbox")

        def end() -> None:
            migration.rollback()
            waiting.result()
            consumer.rollback()

        try:
            yield end
        finally:
            end()


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("shop")
def test_the_story(terminal: Terminal, sql: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faststream_outbox.admin.doctor.CHECK_SECONDS", 2.0)
    with a_migration_that_was_left_open(terminal.dsn) as end:
        for command in typed(pages()[1]):
            if command is None:
                end()
                # A consumer is there again.
                sql("DELETE FROM outbox WHERE queue = 'orders'")
            else:
                shortened: list[Any] = ["0.1" if word == "65" else word for word in command.arguments]
                run(terminal, command._replace(arguments=shortened))
