"""Commands that pause for all processes, and the audit log: ``pause``, ``resume``, ``pauses``, ``audit``."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from faststream_outbox._values.control import AuditLine, Scope, StoredPause
from faststream_outbox._values.printable import printable
from faststream_outbox.admin.pausing import ScopeOptions
from faststream_outbox.cli.choice import read_moment, read_span
from faststream_outbox.cli.exits import CommandError, Exit
from faststream_outbox.cli.output import new_table, show, time_of
from faststream_outbox.cli.site import Site

_PANEL = "What: a forwarder, a queue, a key of a queue, or a key in every queue"

Forwarder = Annotated[str | None, typer.Option(help="A forwarder, by its name.", rich_help_panel=_PANEL)]
Queue = Annotated[str | None, typer.Option(help="A queue.", rich_help_panel=_PANEL)]
Key = Annotated[str | None, typer.Option(help="A key, of --queue or of every queue.", rich_help_panel=_PANEL)]
By = Annotated[
    str | None, typer.Option(help="Who does it; without it, your user and this machine.", show_default=False)
]
Why = Annotated[str | None, typer.Option(help="What for.", show_default=False)]


async def pause(
    site: Site,
    *,
    forwarder: Forwarder = None,
    queue: Queue = None,
    key: Key = None,
    until: Annotated[
        str | None, typer.Option(help="When it ends by itself: 2030-01-31T15:00, in UTC.", show_default=False)
    ] = None,
    lasting: Annotated[
        str | None,
        typer.Option("--for", help="After which time it ends by itself: 90s, 15min, 2h, 7d.", show_default=False),
    ] = None,
    by: By = None,
    why: Why = None,
) -> Exit:
    """Pause a forwarder, a queue or a key in all processes, until it is resumed.

    Rows wait, and nothing is counted. What a process has taken before it knows of the pause is worked off.
    """
    async with site.open() as admin:
        paused = await admin.pause(until=_end(until, lasting), by=by, why=why, **_options(forwarder, queue, key))
    show(paused, Text(f"paused {paused}"), as_json=site.as_json)
    return Exit.OK


async def resume(
    site: Site,
    *,
    forwarder: Forwarder = None,
    queue: Queue = None,
    key: Key = None,
    by: By = None,
    why: Why = None,
) -> Exit:
    """End a pause: name what pauses lists. Exits with 1 where that is not paused."""
    options = _options(forwarder, queue, key)
    async with site.open() as admin:
        was_paused = await admin.resume(by=by, why=why, **options)
    scope = Scope(**options)
    words = f"resumed {scope}" if was_paused else f"{scope} is not paused; faststream-outbox pauses lists what is"
    show({"scope": scope, "was_paused": was_paused}, Text(words), as_json=site.as_json)
    return Exit.OK if was_paused else Exit.FOUND


async def pauses(site: Site) -> Exit:
    """List what is paused for all processes, with who, when, until and why."""
    async with site.open() as admin:
        found = await admin.pauses()
    show(found, _pauses_table(found), as_json=site.as_json)
    return Exit.OK


async def audit(
    site: Site,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many lines.")] = 20,
    before: Annotated[
        int | None, typer.Option(help="Only lines before the one of this id.", show_default=False)
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Only pause, resume, replay or discard.", show_default=False)
    ] = None,
) -> Exit:
    """List who paused, resumed, replayed and discarded what, the last first."""
    async with site.open() as admin:
        found = await admin.audit(limit=limit, before=before, action=action)
    show(found, _audit_table(found), as_json=site.as_json)
    return Exit.OK


def _options(forwarder: str | None, queue: str | None, key: str | None) -> ScopeOptions:
    return ScopeOptions(forwarder=forwarder, queue=queue, key=key)


def _end(until: str | None, lasting: str | None) -> datetime | timedelta | None:
    if until is not None and lasting is not None:
        raise CommandError("--until, --for: give one of them", Exit.USAGE)
    return read_moment("--until", until) or read_span("--for", lasting)


def _pauses_table(found: Sequence[StoredPause]) -> RenderableType:
    if not found:
        return Text("nothing is paused")
    rows = new_table("what", "by", "since (UTC)", "until (UTC)", "why")
    for each in found:
        rows.add_row(str(each.scope), printable(each.who), time_of(each.since), time_of(each.until), _why(each.why))
    return rows


def _audit_table(found: Sequence[AuditLine]) -> RenderableType:
    if not found:
        return Text("no lines")
    rows = new_table("id", "at (UTC)", "by", "action", "what", "why", right=("count",))
    for line in found:
        what = ", ".join(f"{name} {printable(str(value))}" for name, value in line.what.items()) or "all"
        until = "" if line.until is None else f" until {time_of(line.until)}"
        count = "-" if line.action == "pause" else f"{line.affected:,}"
        rows.add_row(
            str(line.id), time_of(line.at), printable(line.who), line.action, what + until, _why(line.why), count
        )
    return rows


def _why(text: str | None) -> str:
    return printable(text or "-")
