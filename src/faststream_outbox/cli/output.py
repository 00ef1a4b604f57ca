"""What commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from faststream_outbox._values.dead_letter import DeadLetter
from faststream_outbox._values.facts import TableFacts
from faststream_outbox._values.figures import Count, DeadLetterGroups, QueueFigures, SeenRow
from faststream_outbox._values.finding import Finding, Grade
from faststream_outbox._values.overview import OutboxState, Overview, is_standing
from faststream_outbox._values.printable import printable
from faststream_outbox._values.spans import size, span
from faststream_outbox.admin import to_json

WIDTH_OF_PIPES = 200
"""Nothing is cut off for a program that reads tables, as far as that goes; programs better take --json."""

_STYLES = {
    Grade.OK: "green",
    Grade.NOTE: "cyan",
    Grade.UNKNOWN: "magenta",
    Grade.WARNING: "yellow",
    Grade.PROBLEM: "bold red",
}
_STATES = {
    OutboxState.FLOWING: "green",
    OutboxState.PAUSED: "cyan",
    OutboxState.STANDING: "yellow",
    OutboxState.BROKEN: "bold red",
}


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes texts of others as they are: no markup, no colours of its own choice."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=WIDTH_OF_PIPES)
    return made


def show(value: Any, rendered: RenderableType, *, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        sys.stdout.write(json.dumps(to_json(value), ensure_ascii=False) + "\n")
        sys.stdout.flush()
    else:
        console().print(rendered)


def queues_table(figures: Sequence[QueueFigures], before: dict[str, QueueFigures] | None = None) -> RenderableType:
    """Return queues as a table; with earlier figures, it shows how each backlog has changed."""
    if not figures:
        return Text("no queue has rows")
    table = new_table("queue", right=("ready", "due", "timers", "retries", "leased", "dead", "oldest"))
    for each in figures:
        name = Text(printable(each.queue), style="bold yellow" if is_standing(each) else "")
        name.append(_paused(each), style="cyan")
        table.add_row(
            name,
            Text(f"{_count(each.ready)}{_change(each, before)}"),
            _count(each.due),
            _count(each.timers),
            _count(each.retries),
            Text(str(each.leased) + (f" ({each.leases_run_out} run out)" if each.leases_run_out else ""))
            if each.leased.rows
            else _count(each.leased),
            Text(str(each.dead), style="red") if each.dead.rows else Text("-", style="dim"),
            Text(span(each.oldest_seconds), style="yellow" if is_standing(each) else ""),
        )
    return table


def _paused(figures: QueueFigures) -> str:
    if figures.is_paused:
        return " (paused)"
    return f" ({len(figures.pauses)} paused key{'' if len(figures.pauses) == 1 else 's'})" if figures.pauses else ""


def _change(figures: QueueFigures, before: dict[str, QueueFigures] | None) -> str:
    if before is None:
        return ""
    earlier = before.get(figures.queue)
    difference = figures.backlog.rows - (earlier.backlog.rows if earlier else 0)
    return f" ({difference:+,})" if difference else ""


def _count(count: Count) -> Text:
    return Text(str(count)) if count.rows else Text("-", style="dim")


def overview_text(overview: Overview) -> RenderableType:
    """Return an outbox at a glance."""
    server = overview.server
    grid = Table.grid(padding=(0, 2))
    grid.add_row("state", Text(overview.state, style=_STATES[overview.state]))
    kind = "" if server.takes_writes else (", a standby" if server.is_standby else ", read only")
    pooler = ", behind a pooler" if server.is_pooled else ""
    grid.add_row("database", f"{server.database}, PostgreSQL {server.version}{kind}{pooler}, as role {server.role}")
    for facts in overview.tables:
        grid.add_row(facts.table, _facts(facts))
    for table, problems in overview.differences.items():
        for problem in problems:
            grid.add_row(printable(table), Text(problem, style="bold red"))
    total = sum(figures.dead.rows for figures in overview.queues)
    standing = [figures for figures in overview.queues if is_standing(figures)]
    grid.add_row("queues", f"{len(overview.queues)} with rows, {len(standing)} with rows that stand")
    grid.add_row("dead letters", f"{total:,}")
    for pause in overview.pauses:
        grid.add_row("paused", Text(str(pause), style="cyan"))
    return grid


def _facts(facts: TableFacts) -> str:
    rows = (
        "no estimate of its rows yet"
        if facts.estimated_rows < 0
        else f"about {facts.estimated_rows:,} rows (an estimate)"
    )
    return f"{rows}, {size(facts.table_bytes)}, indexes {size(facts.index_bytes)}"


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """Return findings as a table, in the order in which they were made."""
    table = new_table("", "check", "what was seen, and what to do")
    for finding in findings:
        text = Text(finding.text)
        if finding.advice and finding.grade is not Grade.OK:
            text.append(f"\n-> {finding.advice}", style="dim")
        table.add_row(Text(finding.grade, style=_STYLES[finding.grade]), finding.check, text)
    return table


def groups_table(found: DeadLetterGroups) -> RenderableType:
    """Return groups of dead letters as a table."""
    if not found.groups:
        return Text("no dead letters")
    table = new_table("queue", "reason", "exception", "first (UTC)", "last (UTC)", "example", right=("count", "held"))
    for group in found.groups:
        table.add_row(
            printable(group.queue),
            printable(group.reason),
            printable(group.kind or "-"),
            time_of(group.first_failed_at),
            time_of(group.last_failed_at),
            _short(group.example),
            f"{group.count:,}",
            str(group.held or "-"),
        )
    return table


def letters_table(letters: Sequence[DeadLetter]) -> RenderableType:
    """Return dead letters as a table."""
    if not letters:
        return Text("no dead letters")
    table = new_table("id", "queue", "key", "failed at (UTC)", "reason", "exception")
    for letter in letters:
        table.add_row(
            str(letter.row.id),
            printable(letter.row.queue),
            printable(letter.row.key or "-") + (" (held)" if letter.holds_key else ""),
            time_of(letter.failed_at),
            printable(letter.reason),
            _short(letter.exception),
        )
    return table


def letter_text(letter: DeadLetter) -> RenderableType:
    """Return all of a dead letter."""
    row = letter.row
    grid = Table.grid(padding=(0, 2))
    for name, value in (
        ("id", str(row.id)),
        ("queue", row.queue),
        ("key", (row.key or "-") + (", whose later rows wait" if letter.holds_key else "")),
        ("idempotency key", row.idempotency_key),
        ("reason", letter.reason),
        ("exception", letter.exception or "-"),
        ("failed at (UTC)", time_of(letter.failed_at)),
        ("published at (UTC)", time_of(row.created_at)),
        ("attempts", f"{row.attempts_count} failed, of {row.deliveries_count} deliveries"),
        *((f"header {name}", value) for name, value in row.headers.items()),
        ("body", body_text(row.payload)),
    ):
        grid.add_row(printable(name), printable(value))
    return grid


def rows_table(rows: Sequence[SeenRow]) -> RenderableType:
    """Return rows as a table."""
    if not rows:
        return Text("no such rows")
    table = new_table("id", "key", "published at (UTC)", "due at (UTC)", "body", right=("attempts", "bytes"))
    for seen in rows:
        table.add_row(
            str(seen.row.id),
            printable(seen.row.key or "-"),
            time_of(seen.row.created_at),
            time_of(seen.next_attempt_at),
            _short(body_text(seen.row.payload)),
            str(seen.row.attempts_count),
            f"{seen.size:,}",
        )
    return table


def body_text(payload: bytes) -> str:
    """Return a body as text; bytes that are no UTF-8 are shown as escapes."""
    return payload.decode(errors="backslashreplace")


def _short(text: str | None, length: int = 60) -> str:
    line = printable((text or "-").partition("\n")[0])
    return line if len(line) <= length else f"{line[: length - 1]}…"


def time_of(moment: datetime | None) -> str:
    """Return a time as people read it, in UTC."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a table without lines; the columns named ``right`` stand behind the others, and have figures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right", no_wrap=True)
    return table
