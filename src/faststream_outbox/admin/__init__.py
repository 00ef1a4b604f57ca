"""What people who run an outbox ask of it and do with it, from an engine and the names of its tables."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.advice import explain
from faststream_outbox._store.postgres.controls import PostgresControls
from faststream_outbox._store.postgres.dead_letters import PostgresDeadLetters
from faststream_outbox._store.postgres.examiner import PostgresExaminer
from faststream_outbox._store.postgres.onlooker import PostgresOnlooker
from faststream_outbox._values.control import AuditLine, Scope, StoredPause
from faststream_outbox._values.figures import (
    Count,
    DeadLetterGroup,
    DeadLetterGroups,
    QueueFigures,
    RowState,
    SeenRow,
)
from faststream_outbox._values.finding import Finding, Grade
from faststream_outbox.admin.admin import OutboxAdmin
from faststream_outbox.admin.dead_letters import DeadLetters
from faststream_outbox.admin.json_form import to_json

if TYPE_CHECKING:
    from faststream_outbox.admin.page.router import make_admin_router

__all__ = (
    "AuditLine",
    "Count",
    "DeadLetterGroup",
    "DeadLetterGroups",
    "DeadLetters",
    "Finding",
    "Grade",
    "OutboxAdmin",
    "QueueFigures",
    "RowState",
    "Scope",
    "SeenRow",
    "StoredPause",
    "make_admin",
    "make_admin_router",
    "to_json",
)


def __getattr__(name: str) -> Any:
    """Import the page on its first use, since it needs FastAPI and Jinja, which nothing else here does."""
    if name == "make_admin_router":
        from faststream_outbox.admin.page import make_admin_router  # noqa: PLC0415 - see above

        return make_admin_router
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def make_admin(
    engine: AsyncEngine,
    *,
    outbox_table: Table,
    dlq_table: Table | None = None,
    position_table: Table | None = None,
    control_table: Table | None = None,
    inbox_table: Table | None = None,
    listen_engine: AsyncEngine | None = None,
) -> OutboxAdmin:
    """Return what ``broker.admin`` is, where there is no broker.

    Args:
        engine: On ``postgresql+asyncpg``; it is used, and never disposed.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``; None where dead letters stay in the outbox table.
        position_table: Made by ``make_position_table``; to be looked at with the others.
        control_table: Made by ``make_outbox_control_table``; pauses that are stored, and the audit log, need it.
        inbox_table: Made by ``make_inbox_table``, if it is in this database; to be looked at with the others.
        listen_engine: Where to listen, if not on ``engine``.

    Example::

        admin = make_admin(engine, outbox_table=make_outbox_table(MetaData()))
        for figures in await admin.queues():
            print(figures.queue, figures.backlog, figures.oldest_seconds)
    """
    controls = None if control_table is None else PostgresControls(engine, outbox_table, control_table)
    others = [table for table in (position_table, control_table) if table is not None]
    return OutboxAdmin(
        PostgresOnlooker(engine, outbox_table, dlq_table),
        PostgresExaminer(
            engine, outbox_table, dlq_table, others=others, inbox_table=inbox_table, listen_engine=listen_engine
        ),
        PostgresDeadLetters(engine, outbox_table, dlq_table, controls=controls),
        explain,
        controls,
    )
