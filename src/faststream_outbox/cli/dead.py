"""Commands for dead letters: ``list``, ``groups``, ``show``, ``replay``, ``discard``."""

import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from faststream_outbox.admin.dead_letters import DEFAULT_BATCH
from faststream_outbox.admin.pausing import me
from faststream_outbox.cli.choice import Choice
from faststream_outbox.cli.exits import CommandError, Exit
from faststream_outbox.cli.output import console, groups_table, letter_text, letters_table, show
from faststream_outbox.cli.site import Site

LetterId = Annotated[int, typer.Argument(metavar="ID", help="As dead list shows it.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="The most to show.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be done.")]
Everything = Annotated[bool, typer.Option("--all", help="All dead letters, where nothing else says which.")]
By = Annotated[
    str | None, typer.Option(help="Who does it; without it, your user and this machine.", show_default=False)
]
Why = Annotated[str | None, typer.Option(help="What for, for the audit log.", show_default=False)]
Batch = Annotated[int, typer.Option(min=1, max=100_000, help="How many in one transaction.")]


async def list_(site: Site, choice: Choice, limit: Limit = 20) -> Exit:
    """List dead letters, the oldest first."""
    async with site.open() as admin:
        letters = await admin.dead_letters.list(limit=limit, **choice.options())
    show(letters, letters_table(letters), as_json=site.as_json)
    return Exit.OK


async def groups(site: Site, choice: Choice, limit: Limit = 50) -> Exit:
    """Count dead letters by queue, reason and type of exception, the largest groups first."""
    async with site.open() as admin:
        found = await admin.dead_letters.groups(limit=limit, **choice.options())
    show(found, groups_table(found), as_json=site.as_json)
    return Exit.OK


async def show_(
    site: Site, letter_id: Annotated[int, typer.Argument(metavar="ID", help="As dead list shows it.")]
) -> Exit:
    """Show all of a dead letter: headers, body, exception and times. Exits with 1 where there is none of this id."""
    async with site.open() as admin:
        # Where ids began anew, several letters have one.
        letters = await admin.dead_letters.list(ids=[letter_id], limit=100)
    if not letters:
        raise CommandError(f"there is no dead letter with the id {letter_id}", Exit.FOUND)
    show(letters, Group(*map(letter_text, letters)), as_json=site.as_json)
    return Exit.OK


async def replay(
    site: Site,
    choice: Choice,
    *,
    yes: Yes = False,
    everything: Everything = False,
    batch: Batch = DEFAULT_BATCH,
    by: By = None,
    why: Why = None,
) -> Exit:
    """Replay dead letters as ordinary messages, with the same identity, bytes and headers.

    Without --yes nothing is changed. What fails again meanwhile is not replayed again. If the command is ended in the
    middle, each letter is either replayed or not, and the same command goes on with the rest.
    """
    return await _change(site, choice, "replay", yes=yes, everything=everything, batch=batch, by=by, why=why)


async def discard(
    site: Site,
    choice: Choice,
    *,
    yes: Yes = False,
    everything: Everything = False,
    batch: Batch = DEFAULT_BATCH,
    by: By = None,
    why: Why = None,
) -> Exit:
    """Delete dead letters for good. What one of them held back goes on. Without --yes nothing is changed."""
    return await _change(site, choice, "discard", yes=yes, everything=everything, batch=batch, by=by, why=why)


async def _change(
    site: Site,
    choice: Choice,
    action: str,
    *,
    yes: bool,
    everything: bool,
    batch: int,
    by: str | None,
    why: str | None,
) -> Exit:
    options = choice.options()
    if not choice.given() and not everything:
        raise CommandError(f"{action} which dead letters? Say so (--queue, --id, --reason ...), or --all", Exit.USAGE)
    async with site.open() as admin:
        count = await admin.dead_letters.count(**options)
        if not yes:
            found = await admin.dead_letters.groups(**options)
            answer = {"action": action, "dry_run": True, "selected": count, "groups": found.groups}
            words = f"\nwould {action} {count:,} dead letters; nothing was changed: add --yes"
            show(answer, Group(groups_table(found), words), as_json=site.as_json)
            return Exit.OK
        work = admin.dead_letters.replay_all if action == "replay" else admin.dead_letters.discard_all
        done = await _do(work(batch=batch, by=by, why=why, **options), action, count, as_json=site.as_json)
        left = await admin.dead_letters.count(**options)
    answer = {"action": action, "dry_run": False, "selected": count, "done": done, "left": left}
    audit = _audit(site, choice, action, done) | {"by": me() if by is None else by, "why": why}
    show(answer | {"audit": audit}, f"{_past(action)} {done:,} dead letters{_rest(action, left)}", as_json=site.as_json)
    if not site.as_json:
        sys.stderr.write(f"audit: {json.dumps(audit, ensure_ascii=False)}\n")
    return Exit.OK


async def _do(changes: AsyncIterator[int], action: str, count: int, *, as_json: bool) -> int:
    done = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), disable=as_json) as progress:
        task = progress.add_task(action, total=count)
        try:
            async for done in changes:
                progress.update(task, completed=done)
        except BaseException:
            sys.stderr.write(
                f"{_past(action)} {done:,} of {count:,} dead letters for sure; the same command goes on with the rest\n"
            )
            raise
    return done


def _past(action: str) -> str:
    return {"replay": "replayed", "discard": "discarded"}[action]


def _rest(action: str, left: int) -> str:
    if not left:
        return ""
    if action == "discard":
        return f"; {left:,} are left: they failed meanwhile, or another session has them"
    return f"; {left:,} are left: they failed meanwhile, a live message stands for them, or another session has them"


def _audit(site: Site, choice: Choice, action: str, done: int) -> dict[str, Any]:
    """Return who did what to which letters, for a log."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "action": f"dead {action}",
        "table": site.table,
        "which": choice.given() or "all",
        "count": done,
    }
