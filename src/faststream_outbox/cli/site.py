"""The outbox that a command is about: a database, and the names of its tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox.admin import OutboxAdmin, make_admin
from faststream_outbox.cli.dsn import read_dsn, without_secrets
from faststream_outbox.cli.exits import CommandError, Exit
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.schema import make_dlq_table, make_outbox_table

CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the options of every command say."""

    dsn: str | None
    dsn_file: Path | None
    table: str
    schema: str | None
    dlq_table: str | None
    timeout: float
    as_json: bool

    def tables(self) -> tuple[Table, Table]:
        """Return the declarations of the outbox table and of its dead-letter table.

        Raises:
            CommandError: A name cannot be.
        """
        metadata = MetaData()
        try:
            return (
                make_outbox_table(metadata, self.table, schema=self.schema),
                make_dlq_table(metadata, self.dlq_table or f"{self.table}_dlq", schema=self.schema),
            )
        except ConfigError as error:
            raise CommandError(f"--{str(error).replace('table_name', 'table', 1)}", Exit.USAGE) from error

    def without_secrets(self, text: str) -> str:
        """Return a text without the password, should it be in it."""
        try:
            return without_secrets(text, read_dsn(self.dsn, self.dsn_file))
        except CommandError:
            return text

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OutboxAdmin]:
        """Connect, and yield the admin API; the connections are closed at the end.

        A dead-letter table that is not named is used if there is one called after the outbox table.
        """
        outbox_table, dlq_table = self.tables()
        engine = self._engine()
        try:
            # It waits for no lock on a table, and where nothing can be asked at all, it says so at once.
            is_there = await make_admin(engine, outbox_table=outbox_table).has_table(dlq_table)
            # One that is named and not there is an error of its own.
            used = dlq_table if is_there or self.dlq_table is not None else None
            yield make_admin(engine, outbox_table=outbox_table, dlq_table=used)
        finally:
            await engine.dispose()

    def _engine(self) -> AsyncEngine:
        return create_async_engine(
            # asyncpg reads the address itself, with several hosts, sslmode, ~/.pgpass and variables such as PGPASSWORD.
            "postgresql+asyncpg://",
            pool_size=2,
            max_overflow=1,
            hide_parameters=True,
            connect_args={
                "dsn": read_dsn(self.dsn, self.dsn_file),
                "timeout": CONNECT_SECONDS,
                "command_timeout": self.timeout,
                "server_settings": {"application_name": "faststream-outbox"},
                # A pooler in transaction mode may stand between.
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
            },
        )
