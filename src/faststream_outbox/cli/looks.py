"""Commands that look: ``status``, ``queues``, ``watch``, ``peek``."""

import asyncio
import json
import sys
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from faststream_outbox._values.figures import QueueFigures, RowState
from faststream_outbox.admin import OutboxAdmin, to_json
from faststream_outbox.cli.command import in_words
from faststream_outbox.cli.exits import Exit
from faststream_outbox.cli.output import console, overview_text, queues_table, rows_table, show
from faststream_outbox.cli.site import Site

AtMost = Annotated[
    int,
    typer.Option(min=1, help="Rows to count in each state and shard (a queue has 16); more are shown as 1,000+."),
]


async def status(site: Site, at_most: AtMost = 1000) -> Exit:
    """Show the outbox at a glance: whether rows flow, tables, queues."""
    async with site.open() as admin:
        overview = await admin.overview(at_most=at_most)
    show(overview, Group(overview_text(overview), "", queues_table(overview.queues)), as_json=site.as_json)
    return Exit.OK


async def queues(site: Site, at_most: AtMost = 1000) -> Exit:
    """List the queues that have rows, with how many and how old.

    Timers and retries that wait for their time are no backlog and have no age.
    """
    async with site.open() as admin:
        found = await admin.queues(at_most=at_most)
    show(found, queues_table(found), as_json=site.as_json)
    return Exit.OK


async def watch(
    site: Site,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many looks; 0 goes on until Ctrl-C.")] = 0,
    at_most: AtMost = 1000,
) -> Exit:
    """Show the queues again and again.

    In parentheses stands how a backlog has changed since the look before. With --json, each look is a line.
    """
    async with site.open() as admin:
        if site.as_json:
            await _write_looks(admin, interval, count, at_most)
        else:
            await _show_looks(admin, interval, count, at_most)
    return Exit.OK


async def _write_looks(admin: OutboxAdmin, interval: float, count: int, at_most: int) -> None:
    number = 0
    while True:
        sys.stdout.write(json.dumps(to_json(await admin.queues(at_most=at_most)), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        number += 1
        if number == count:
            return
        await asyncio.sleep(interval)


async def _show_looks(admin: OutboxAdmin, interval: float, count: int, at_most: int) -> None:
    before: dict[str, QueueFigures] | None = None
    number = 0
    with Live(console=console(), auto_refresh=False, transient=False) as live:
        while True:
            shown: RenderableType
            try:
                found = await admin.queues(at_most=at_most)
                shown = queues_table(found, before)
                before = {figures.queue: figures for figures in found}
            except (SQLAlchemyError, OSError) as error:
                if before is None:
                    raise
                shown = Text(f"{in_words(error)}; it is tried again", style="bold red")
            live.update(shown, refresh=True)
            number += 1
            if number == count:
                return
            await asyncio.sleep(interval)


async def peek(
    site: Site,
    queue: Annotated[str, typer.Argument(help="The queue; copies of a forwarder are in one like 'orders=>redis:x'.")],
    state: Annotated[RowState, typer.Option(help="Rows in which state.")] = RowState.READY,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many rows.")] = 20,
    body_bytes: Annotated[int, typer.Option(min=1, help="How much of each body to read.")] = 4096,
) -> Exit:
    """Show the first rows of a queue.

    Takes no lock, and changes nothing.
    """
    async with site.open() as admin:
        found = await admin.seen(queue, state=state, limit=limit, max_bytes=body_bytes)
    show(found, rows_table(found), as_json=site.as_json)
    return Exit.OK
