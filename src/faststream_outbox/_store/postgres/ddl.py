"""The statements that owners of tables run: they are printed, and nothing here runs them."""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

from sqlalchemy import CheckConstraint, Table
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.schema import CreateIndex, CreateTable

from faststream_outbox._store.postgres.statements import fill, quote_name, quote_table
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.schema import MADE_KEY, MAX_IDENTIFIER_BYTES

_DIALECT = PGDialect_asyncpg(paramstyle="named")  # type: ignore[no-untyped-call]

FIRST_RELEASE = (0, 1, 0)
"""The release that declares the tables as they are now. Only what was made before it needs statements."""

_VERSION = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?(.*)")


class Work(StrEnum):
    """What a role is to do."""

    PUBLISHER = "publisher"
    PUBLISHER_WITH_TEE = "publisher-with-tee"
    PUBLISHER_WITH_TIMERS = "publisher-with-timers"
    PUBLISHER_THAT_MOVES_TIMERS = "publisher-that-moves-timers"
    CONSUMER = "consumer"
    CONSUMER_WITH_INBOX = "consumer-with-inbox"
    INBOX_PRUNER = "inbox-pruner"
    DEAD_LETTERS = "dead-letters"
    PAUSES = "pauses"
    ONLOOKER = "onlooker"


_NEEDED = {Work.CONSUMER_WITH_INBOX: "inbox", Work.INBOX_PRUNER: "inbox", Work.PAUSES: "control"}
_WHERE = re.compile(r"^(-- Where there is an? ([a-z-]+) table\.\n)", re.MULTILINE)


def creation(tables: Sequence[Table]) -> Iterator[str]:
    """Yield the statements that create these tables with their indexes."""
    for table in tables:
        yield _terminated(str(CreateTable(table).compile(dialect=_DIALECT)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield _terminated(str(CreateIndex(index).compile(dialect=_DIALECT)))


def upgrade(outbox_table: Table, dlq_table: Table | None, *, from_version: str | None = None) -> Iterator[str]:
    """Yield the statements for tables that an earlier release has made; they may be run more than once.

    Indexes are created without a lock that writers wait for, so each statement is to be run outside a transaction.

    Args:
        outbox_table: As it is declared now.
        dlq_table: The same of the dead-letter table, or None.
        from_version: The release that made the tables; None: any.

    Raises:
        ConfigError: That is no version.
    """
    if from_version is not None and not _is_before(from_version):
        return
    tables = [outbox_table] if dlq_table is None else [outbox_table, dlq_table]
    if dlq_table is not None:
        key = quote_name(f"{dlq_table.name}_pkey")
        yield fill("ddl_upgrade_origin", dlq_table=quote_table(dlq_table), dlq_key=key).strip()
    for table in tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            statement = str(CreateIndex(index, if_not_exists=True).compile(dialect=_DIALECT))
            yield _terminated(statement.replace("INDEX IF NOT", "INDEX CONCURRENTLY IF NOT", 1))
    yield fill("ddl_upgrade_key", table=quote_table(outbox_table), made_key=MADE_KEY).strip()
    for check in sorted(_checks(outbox_table), key=lambda check: str(check.name)):
        clauses = {"check_name": quote_name(str(check.name)), "check": str(check.sqltext)}
        yield fill("ddl_upgrade_check", table=quote_table(outbox_table), **clauses).strip()


def grants(
    work: Work,
    outbox_table: Table,
    dlq_table: Table | None = None,
    *,
    role: str,
    position_table: Table | None = None,
    control_table: Table | None = None,
    inbox_table: Table | None = None,
) -> str:
    """Return the statements that give a role what it needs for a work, and no more.

    Args:
        work: What it is to do.
        outbox_table: Where.
        dlq_table: The dead-letter table; None leaves out what is about it, as for the tables below.
        role: Its name.
        position_table: The position table, or None.
        control_table: The control table, or None.
        inbox_table: The inbox table, or None.

    Raises:
        ConfigError: The work is about a table alone that is not named.
    """
    optional = {"dead-letter": dlq_table, "position": position_table, "control": control_table, "inbox": inbox_table}
    clauses = {
        "table": quote_table(outbox_table),
        "sequence": _sequence(outbox_table),
        "role": quote_name(role),
        **{f"{kind.replace('-', '_')}_table": _quoted(table) for kind, table in optional.items()},
    }
    needed = _NEEDED.get(work)
    if needed is not None and optional[needed] is None:
        msg = f"--{needed}-table: the work {work} is done with this table; give its name"
        raise ConfigError(msg)
    # What comes before the first table that is optional; then, in turns, such a table and what is about it.
    text, *parts = _WHERE.split(fill(f"ddl_grants_{work.replace('-', '_')}", **clauses))
    for heading, kind, part in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if optional[kind] is not None:
            text += heading + part
    return text.strip()


def autovacuum(outbox_table: Table) -> str:
    """Return the statement that has PostgreSQL clean up behind the outbox table in time."""
    return fill("ddl_autovacuum", table=quote_table(outbox_table)).strip()


def _quoted(table: Table | None) -> str:
    return "" if table is None else quote_table(table)


def _sequence(table: Table) -> str:
    """Return the name that PostgreSQL gives the sequence of a table's ids: it shortens the name of the table."""
    ending = "_id_seq"
    beginning = table.name.encode()[: MAX_IDENTIFIER_BYTES - len(ending)].decode(errors="ignore")
    name = quote_name(f"{beginning}{ending}")
    return name if table.schema is None else f"{quote_name(table.schema)}.{name}"


def _checks(table: Table) -> list[CheckConstraint]:
    return [each for each in table.constraints if isinstance(each, CheckConstraint)]


def _terminated(statement: str) -> str:
    lines = (line.rstrip() for line in statement.replace("\t", "    ").strip().splitlines())
    return "\n".join(line for line in lines if line) + ";"


def _is_before(version: str) -> bool:
    found = _VERSION.fullmatch(version.removeprefix("v"))
    if found is None:
        msg = f"from_version: must be a version like 0.1.0, got {version!r}"
        raise ConfigError(msg)
    numbers = tuple(int(number or 0) for number in found.groups()[:3])
    # 0.1.0rc1 is before 0.1.0.
    return numbers < FIRST_RELEASE or (numbers == FIRST_RELEASE and bool(found[4]))
