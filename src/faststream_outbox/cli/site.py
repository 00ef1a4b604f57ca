"""The outbox that a command is about: a database, and the names of its tables."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox._values.dsn import without_secrets
from faststream_outbox.admin import OutboxAdmin, make_admin
from faststream_outbox.cli.dsn import read_dsn
from faststream_outbox.cli.exits import CommandError, Exit
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.schema import (
    MAX_IDENTIFIER_BYTES,
    make_dlq_table,
    make_inbox_table,
    make_outbox_control_table,
    make_outbox_table,
    make_position_table,
)

CONNECT_SECONDS = 10.0

DLQ, POSITION, CONTROL, INBOX = "dlq_table", "position_table", "control_table", "inbox_table"
FACTORIES = {
    DLQ: make_dlq_table,
    POSITION: make_position_table,
    CONTROL: make_outbox_control_table,
    INBOX: make_inbox_table,
}
"""The tables beside the outbox table, by the names of the options that name them."""


def declare(table: str, schema: str | None, others: Mapping[str, str]) -> dict[str, Table]:
    """Declare the outbox table, as ``outbox_table``, and tables beside it, by the names of their options.

    Raises:
        CommandError: A name cannot be; or two tables have one.
    """
    metadata = MetaData()
    makers = {"outbox_table": (make_outbox_table, table)} | {
        option: (FACTORIES[option], name) for option, name in others.items()
    }
    declared: dict[str, Table] = {}
    for option, (make, name) in makers.items():
        shown = f"--{'table' if option == 'outbox_table' else option.replace('_', '-')}"
        if any(other.name == name for other in declared.values()):
            raise CommandError(f"{shown}: {name!r} is the name of another of these tables", Exit.USAGE)
        try:
            declared[option] = make(metadata, name, schema=schema)
        except ConfigError as error:
            told = str(error).replace("table_name", shown, 1)
            raise CommandError(told if told.startswith("--") else f"--{told}", Exit.USAGE) from error
    return declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the options of every command say."""

    dsn: str | None
    dsn_file: Path | None
    table: str
    schema: str | None
    dlq_table: str | None
    position_table: str | None
    control_table: str | None
    inbox_table: str | None
    timeout: float
    as_json: bool

    def tables(self) -> dict[str, Table]:
        """Return the declarations of the tables that are named, and of those that may be there.

        Raises:
            CommandError: A name cannot be.
        """
        # An inbox is called after nothing, and a table of that name may be anything.
        guessed = {DLQ: f"{self.table}_dlq", POSITION: f"{self.table}_position", CONTROL: f"{self.table}_control"}
        # No table has a name that is too long.
        guessed = {
            option: name
            for option, name in guessed.items()
            if len(name.encode(errors="surrogatepass")) <= MAX_IDENTIFIER_BYTES
        }
        named = {option: name for option in FACTORIES if (name := getattr(self, option)) is not None}
        return declare(self.table, self.schema, guessed | named)

    def without_secrets(self, text: str) -> str:
        """Return a text without the password, should it be in it."""
        try:
            return without_secrets(text, read_dsn(self.dsn, self.dsn_file))
        except CommandError:
            return text

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OutboxAdmin]:
        """Connect, and yield the admin API; the connections are closed at the end.

        A table that is not named is used if there is one called after the outbox table.
        """
        tables = self.tables()
        engine = self._engine()
        try:
            # It waits for no lock on a table, and where nothing can be asked at all, it says so at once.
            has_table = make_admin(engine, outbox_table=tables["outbox_table"]).has_table
            for option in [*tables]:
                # One that is named and not there is an error of its own.
                is_guessed = option != "outbox_table" and getattr(self, option) is None
                if is_guessed and not await has_table(tables[option]):
                    del tables[option]
            yield make_admin(
                engine,
                outbox_table=tables["outbox_table"],
                dlq_table=tables.get(DLQ),
                position_table=tables.get(POSITION),
                control_table=tables.get(CONTROL),
                inbox_table=tables.get(INBOX),
            )
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
