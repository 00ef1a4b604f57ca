"""Commands that print SQL: ``create``, ``upgrade``, ``grants``, ``autovacuum``. They need no database."""

import json
from collections.abc import Iterable
from typing import Annotated

import typer
from sqlalchemy import Table

from faststream_outbox._store.postgres.ddl import Work, creation
from faststream_outbox._store.postgres.ddl import autovacuum as autovacuum_sql
from faststream_outbox._store.postgres.ddl import grants as grants_sql
from faststream_outbox._store.postgres.ddl import upgrade as upgrade_sql
from faststream_outbox.cli.exits import CommandError, Exit, report
from faststream_outbox.cli.site import CONTROL, DLQ, INBOX, POSITION, declare
from faststream_outbox.exceptions import ConfigError

TableName = Annotated[str, typer.Option("--table", envvar="OUTBOX_TABLE", help="The outbox table.")]
Schema = Annotated[str | None, typer.Option("--schema", envvar="OUTBOX_SCHEMA", help="Its schema.", show_default=False)]
DlqTable = Annotated[
    str | None,
    typer.Option(
        "--dlq-table",
        envvar="OUTBOX_DLQ_TABLE",
        help="The dead-letter table; without it, TABLE_dlq.",
        show_default=False,
    ),
]
PositionTable = Annotated[
    str | None,
    typer.Option("--position-table", envvar="OUTBOX_POSITION_TABLE", help="The position table, if there is to be one."),
]
ControlTable = Annotated[
    str | None,
    typer.Option("--control-table", envvar="OUTBOX_CONTROL_TABLE", help="The control table, if there is to be one."),
]
InboxTable = Annotated[
    str | None,
    typer.Option("--inbox-table", envvar="OUTBOX_INBOX_TABLE", help="The inbox table, if there is to be one."),
]
NoDlq = Annotated[bool, typer.Option("--no-dlq-table", help="There is no dead-letter table.")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON list of statements.")]


def create(
    *,
    table: TableName = "outbox",
    schema: Schema = None,
    dlq_table: DlqTable = None,
    no_dlq: NoDlq = False,
    position_table: PositionTable = None,
    control_table: ControlTable = None,
    inbox_table: InboxTable = None,
    as_json: Json = False,
) -> None:
    """Print the statements that create the tables with their indexes and checks.

    Tables for positions, for pauses with the audit log, and for an inbox are printed where they are named.
    """
    others = {POSITION: position_table, CONTROL: control_table, INBOX: inbox_table}
    tables = _tables(table, schema, dlq_table, no_dlq=no_dlq, as_json=as_json, **others)
    _print(creation([*tables.values()]), as_json=as_json)


def upgrade(
    *,
    from_version: Annotated[
        str | None,
        typer.Option(help="The release that made the tables; without it, all that any needs.", show_default=False),
    ] = None,
    table: TableName = "outbox",
    schema: Schema = None,
    dlq_table: DlqTable = None,
    no_dlq: NoDlq = False,
    as_json: Json = False,
) -> None:
    """Print the statements for tables of an earlier release; they may be run more than once.

    Run each outside a transaction (psql does so, without --single-transaction).
    """
    tables = _tables(table, schema, dlq_table, no_dlq=no_dlq, as_json=as_json)
    try:
        statements = [*upgrade_sql(tables["outbox_table"], tables.get(DLQ), from_version=from_version)]
    except ConfigError as error:
        raise _refused(str(error).replace("from_version", "--from-version", 1), as_json=as_json) from error
    _print(statements or ["-- Nothing has changed since then."], as_json=as_json)


def grants(
    work: Annotated[list[Work], typer.Argument(help="What the role is to do.")],
    *,
    role: Annotated[str, typer.Option(help="The role.")],
    table: TableName = "outbox",
    schema: Schema = None,
    dlq_table: DlqTable = None,
    no_dlq: NoDlq = False,
    position_table: PositionTable = None,
    control_table: ControlTable = None,
    inbox_table: InboxTable = None,
    as_json: Json = False,
) -> None:
    """Print the privileges that a role needs for its work, and no more.

    What is about the tables for positions, for pauses with the audit log, and for an inbox is printed where they are
    named.
    """
    others = {POSITION: position_table, CONTROL: control_table, INBOX: inbox_table}
    tables = _tables(table, schema, dlq_table, no_dlq=no_dlq, as_json=as_json, **others)
    try:
        statements = [grants_sql(each, role=role, **tables) for each in dict.fromkeys(work)]
    except ConfigError as error:
        raise _refused(str(error), as_json=as_json) from error
    _print(statements, as_json=as_json)


def autovacuum(*, table: TableName = "outbox", schema: Schema = None, as_json: Json = False) -> None:
    """Print settings with which autovacuum keeps up with the outbox table."""
    tables = _tables(table, schema, None, no_dlq=True, as_json=as_json)
    _print([autovacuum_sql(tables["outbox_table"])], as_json=as_json)


def _tables(
    table: str, schema: str | None, dlq_table: str | None, *, no_dlq: bool, as_json: bool, **others: str | None
) -> dict[str, Table]:
    named = {DLQ: None if no_dlq else dlq_table or f"{table}_dlq", **others}
    try:
        return declare(table, schema, {option: name for option, name in named.items() if name is not None})
    except CommandError as error:
        raise _refused(str(error), as_json=as_json) from error


def _refused(message: str, *, as_json: bool) -> typer.Exit:
    report(message, as_json=as_json)
    return typer.Exit(Exit.USAGE)


def _print(statements: Iterable[str], *, as_json: bool) -> None:
    typer.echo(json.dumps([*statements]) if as_json else "\n\n".join(statements))
