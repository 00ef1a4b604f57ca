"""Pauses and the audit log in the control table."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.announcing import PAUSES_CHANGED
from faststream_outbox._store.postgres.driver import DriverStatement
from faststream_outbox._store.postgres.statement_runner import StatementRunner, sqlstate
from faststream_outbox._store.postgres.statements import load_control, quote_table
from faststream_outbox._store.postgres.tenants import translated
from faststream_outbox._values.control import AuditLine, Note, Scope, StoredPause
from faststream_outbox.exceptions import ConfigError

UNDEFINED_TABLE = "42P01"
"""SQLSTATE undefined_table; see "PostgreSQL Error Codes" in its manual."""


class PostgresControls:
    """What people have said of one outbox table.

    Args:
        engine: The caller's engine.
        outbox_table: Made by ``make_outbox_table``.
        control_table: Made by ``make_outbox_control_table``.
        runner: Runs single statements; None: one of its own.
    """

    def __init__(
        self, engine: AsyncEngine, outbox_table: Table, control_table: Table, *, runner: StatementRunner | None = None
    ) -> None:
        outbox_table, control_table = translated(outbox_table, engine), translated(control_table, engine)
        self._transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self._runner = runner or StatementRunner(engine, self._transactional)
        self._name = quote_table(control_table)
        self._table = quote_table(outbox_table)

        def load(name: str) -> TextClause:
            return load_control(outbox_table, control_table, name)

        self._pauses = DriverStatement(load("pauses"))
        self._pause, self._resume, self._audit, self._note = map(load, ("pause", "resume", "audit", "audit_note"))

    async def pauses(self) -> Sequence[StoredPause] | None:
        try:
            records = await self._runner.fetch(self._pauses, {})
        except DBAPIError as error:
            if sqlstate(error) == UNDEFINED_TABLE and not await self._is_there():
                return None
            raise
        return [
            StoredPause(
                scope=Scope(forwarder=forwarder, queue=queue, key=key),
                who=who,
                why=why,
                since=_utc(since),
                until=None if until is None else _utc(until),
                seconds_left=left,
            )
            for forwarder, queue, key, who, why, since, until, left in map(tuple, records)
        ]

    async def pause(
        self, scope: Scope, *, who: str, why: str | None, until: datetime | timedelta | None
    ) -> StoredPause:
        span = until if isinstance(until, timedelta) else None
        wanted = {
            **self._about(scope, who, why),
            "until": until if isinstance(until, datetime) else None,
            "within": span,
        }
        async with self._transactional.begin() as connection:
            record = (await connection.execute(self._pause, wanted)).first()
            if record is None:
                # Raised within the transaction, so that an earlier pause goes on.
                msg = f"until: {until} has passed by the database's clock"
                raise ConfigError(msg)
        return StoredPause(
            scope=scope,
            who=who,
            why=why,
            since=_utc(record.at),
            until=None if record.until is None else _utc(record.until),
            seconds_left=record.seconds_left,
        )

    async def resume(self, scope: Scope, *, who: str, why: str | None) -> int:
        async with self._transactional.begin() as connection:
            record = (await connection.execute(self._resume, self._about(scope, who, why))).first()
        return 0 if record is None else int(record.affected)

    async def audit(self, *, limit: int, before: int | None, action: str | None) -> Sequence[AuditLine]:
        wanted = {"limit": limit, "before": before, "action": action}
        async with self._transactional.connect() as connection:
            records = (await connection.execute(self._audit, wanted)).mappings().all()
        return [AuditLine(**{**record, "what": json.loads(record["what"])}) for record in records]

    def note(self, connection: Connection, note: Note, *, affected: int) -> None:
        """Write down what is done in the transaction of a connection, and to how many."""
        wanted = {
            "what": json.dumps(note.what),
            "who": note.who,
            "why": note.why,
            "action": note.action,
            "affected": affected,
            "line": note.line,
        }
        note.line = connection.execute(self._note, wanted).scalar_one()

    async def _is_there(self) -> bool:
        async with self._transactional.connect() as connection:
            found = await connection.exec_driver_sql("SELECT to_regclass($1)", (self._name,))
            return found.scalar_one() is not None

    def _about(self, scope: Scope, who: str, why: str | None) -> dict[str, Any]:
        what = json.dumps(dict(scope.given()))
        return {"what": what, "who": who, "why": why, "table": self._table, "payload": PAUSES_CHANGED}


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
