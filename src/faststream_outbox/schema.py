"""The tables that users create: outbox, dead letters, positions of forwarders, pauses with the audit log, and inbox."""

import hashlib
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import conv

from faststream_outbox.exceptions import ConfigError

SHARDS = 16
"""Virtual shards of a queue: the most lanes of one queue that can work at once, over all processes."""

MAX_IDENTIFIER_BYTES = 63
"""PostgreSQL cuts a longer name silently (NAMEDATALEN - 1, "Identifiers and Key Words" in its manual)."""

MIGRATION = "migration"
"""What a column's ``info`` calls the words on how an older table gets it."""

_OF_BEFORE = 'docs/operating.md, "A dead-letter table of an earlier release", has the statement'

# A key keeps to one shard. Rows without a key go to a shard in runs of 512 ids, so that a backlog of them fills whole
# hand-overs instead of a few rows in each shard.
_SHARD = f"CASE WHEN key IS NULL THEN (id >> 9) & {SHARDS - 1} ELSE hashtextextended(key, 0) & {SHARDS - 1} END"

_READY = "next_attempt_at IS NULL AND failed_at IS NULL"
_WAITING = "next_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL"
_LEASED = "acquired_token IS NOT NULL"
_PARKED = "failed_at IS NOT NULL"
_IN_FORCE = "action = 'pause' AND ended_at IS NULL"
_HOLDING = "last_attempt_at IS NOT NULL AND key IS NOT NULL AND next_attempt_at IS NOT NULL"


MADE_KEY = "CAST(gen_random_uuid() AS text)"
"""The idempotency key of a row that is written without one. ``publish`` always gives one."""

MAX_STORED_HEADERS_BYTES = 256 * 1024
"""Of a row's headers as the table keeps them. All that ``publish`` permits takes less, also when it is thousands of
headers of a byte each. The text of larger ones could be more than the server can write at all."""

# What rows by SQL must be like too. All this takes about half a microsecond a row, of 28 that one takes in a batch. To
# check that every header is a text would take another whole one: a row with something else is a dead letter of its own.
CHECKS = {
    "headers": f"jsonb_typeof(headers) = 'object' AND pg_column_size(headers) <= {MAX_STORED_HEADERS_BYTES}",
    "sizes": "octet_length(queue) <= 255 AND octet_length(key) <= 1024 "
    "AND octet_length(idempotency_key) <= 255 AND octet_length(timer_id) <= 255",
}


def make_outbox_table(metadata: MetaData, table_name: str = "outbox", *, schema: str | None = None) -> Table:
    """Declare the outbox table.

    The caller creates it, with Alembic or ``metadata.create_all``; nothing in this package does.

    Args:
        metadata: Where the table is registered, usually the metadata of the domain's own tables.
        table_name: At most 63 bytes.
        schema: The PostgreSQL schema; None is the connection's search path.

    Returns:
        The table, to be passed to ``OutboxBroker(engine, outbox_table=...)``.

    Raises:
        ConfigError: ``metadata`` is no MetaData, or a name is empty or longer than PostgreSQL keeps.

    Example:
        >>> from sqlalchemy import MetaData
        >>> make_outbox_table(MetaData(), "outbox").name
        'outbox'
    """
    _check_metadata("make_outbox_table", metadata)
    _check_identifier("table_name", table_name)
    _check_schema(schema)

    def index(suffix: str, *columns: str, where: str, unique: bool = False) -> Index:
        return Index(_name(table_name, f"{suffix}_idx"), *columns, unique=unique, postgresql_where=text(where))

    return Table(
        table_name,
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("queue", Text, nullable=False),
        Column("key", Text(collation="C")),
        Column("shard", SmallInteger, Computed(_SHARD, persisted=True)),
        # The default is for rows that SQL writes: see docs/sql.md.
        Column("idempotency_key", Text(collation="C"), nullable=False, server_default=text(MADE_KEY)),
        Column("deduplicate", Boolean, nullable=False, server_default=text("false")),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column("attempts_count", Integer, nullable=False, server_default=text("0")),
        Column("deliveries_count", Integer, nullable=False, server_default=text("0")),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        Column("next_attempt_at", DateTime(timezone=True)),
        Column("first_attempt_at", DateTime(timezone=True)),
        Column("last_attempt_at", DateTime(timezone=True)),
        Column("acquired_at", DateTime(timezone=True)),
        Column("acquired_token", Text),
        Column("timer_id", Text),
        Column("failed_at", DateTime(timezone=True)),
        Column("failure_reason", Text),
        Column("last_exception", Text),
        # Each row stands in just one of the first four; every further index would slow every publish.
        index("ready", "queue", "shard", "id", where=_READY),
        index("waiting", "queue", "shard", "next_attempt_at", where=_WAITING),
        index("leased", "acquired_token", "next_attempt_at", where=_LEASED),
        index("parked", "queue", "failed_at", where=_PARKED),
        # Only rows that were tried before, and wait or are held: finds the one that holds back the rest of its key.
        index("holding", "queue", "shard", "key", where=_HOLDING),
        # Only rows whose publisher asked for it.
        index("idempotency", "queue", "idempotency_key", where="deduplicate", unique=True),
        index("timer", "queue", "timer_id", where="timer_id IS NOT NULL", unique=True),
        # The name is final, whatever the metadata's naming convention makes of those of constraints.
        *(CheckConstraint(sql, conv(_name(table_name, f"{suffix}_check"))) for suffix, sql in CHECKS.items()),
        schema=schema,
    )


def make_dlq_table(metadata: MetaData, table_name: str = "outbox_dlq", *, schema: str | None = None) -> Table:
    """Declare the dead-letter table, to which rows that failed for good are moved.

    It is optional: without it such rows are parked in the outbox table. Several outbox tables may share one; each
    dead letter says in ``outbox`` which of them it comes from.

    Args:
        metadata: Where the table is registered.
        table_name: At most 63 bytes.
        schema: The PostgreSQL schema; None is the connection's search path.

    Returns:
        The table, to be passed to ``OutboxBroker(engine, outbox_table=..., dlq_table=...)``.

    Raises:
        ConfigError: ``metadata`` is no MetaData, or a name is empty or longer than PostgreSQL keeps.

    Example:
        >>> from sqlalchemy import MetaData
        >>> make_dlq_table(MetaData()).name
        'outbox_dlq'
    """
    _check_metadata("make_dlq_table", metadata)
    _check_identifier("table_name", table_name)
    _check_schema(schema)
    return Table(
        table_name,
        metadata,
        # An id alone does not name a letter: other outboxes give the same ones, and so does this one when its ids begin
        # anew. Without an origin: written by a release that noted none.
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("queue", Text, nullable=False),
        Column("key", Text(collation="C")),
        Column("idempotency_key", Text(collation="C"), nullable=False),
        Column("deduplicate", Boolean, nullable=False, server_default=text("false")),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column("attempts_count", Integer, nullable=False),
        Column("deliveries_count", Integer, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("first_attempt_at", DateTime(timezone=True)),
        Column("last_attempt_at", DateTime(timezone=True)),
        Column("timer_id", Text),
        Column("outbox", Text, primary_key=True, server_default=text("''"), info={MIGRATION: _OF_BEFORE}),
        Column("failed_at", DateTime(timezone=True), primary_key=True),
        Column("failure_reason", Text, nullable=False),
        Column("last_exception", Text),
        Index(_name(table_name, "failed_idx"), "queue", "failed_at"),
        schema=schema,
    )


def make_inbox_table(metadata: MetaData, table_name: str = "inbox", *, schema: str | None = None) -> Table:
    """Declare the inbox table, in which consumers enter what they have handled.

    It stands in the consumer's database, whose transactions it is written in. Several consumers may share one.

    Args:
        metadata: Where the table is registered, usually the metadata of the domain's own tables.
        table_name: At most 63 bytes.
        schema: The PostgreSQL schema; None is the connection's search path.

    Returns:
        The table, to be passed to ``Inbox(inbox_table, consumer=...)``.

    Raises:
        ConfigError: ``metadata`` is no MetaData, or a name is empty or longer than PostgreSQL keeps.

    Example:
        >>> from sqlalchemy import MetaData
        >>> make_inbox_table(MetaData()).name
        'inbox'
    """
    _check_metadata("make_inbox_table", metadata)
    _check_identifier("table_name", table_name)
    _check_schema(schema)
    return Table(
        table_name,
        metadata,
        Column("consumer", Text(collation="C"), primary_key=True),
        Column("queue", Text(collation="C"), primary_key=True),
        Column("idempotency_key", Text(collation="C"), primary_key=True),
        Column("accepted_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        # For pruning alone.
        Index(_name(table_name, "accepted_idx"), "consumer", "accepted_at"),
        schema=schema,
    )


def make_position_table(metadata: MetaData, table_name: str = "outbox_position", *, schema: str | None = None) -> Table:
    """Declare the position table, which forwarders with ``exactly_once=True`` need.

    It has a few hundred rows at most for each of them, and keeps how far each shard has come in each partition of the
    destination. It must be in the database of the outbox table, since both are written in one transaction. Several
    outbox tables may share one. To delete its rows may repeat messages that are on their way.

    Args:
        metadata: Where the table is registered.
        table_name: At most 63 bytes.
        schema: The PostgreSQL schema; None is the connection's search path.

    Returns:
        The table, to be passed to ``OutboxBroker(engine, outbox_table=..., position_table=...)``.

    Raises:
        ConfigError: ``metadata`` is no MetaData, or a name is empty or longer than PostgreSQL keeps.

    Example:
        >>> from sqlalchemy import MetaData
        >>> make_position_table(MetaData()).name
        'outbox_position'
    """
    _check_metadata("make_position_table", metadata)
    _check_identifier("table_name", table_name)
    _check_schema(schema)
    return Table(
        table_name,
        metadata,
        Column("outbox", Text, primary_key=True),
        Column("forwarder", Text, primary_key=True),
        Column("queue", Text, primary_key=True),
        Column("shard", SmallInteger, primary_key=True, autoincrement=False),
        # The shard itself has no topic: its row says under which name its batches are sent, and who wrote last.
        Column("topic", Text(collation="C"), primary_key=True, server_default=text("''")),
        Column("partition", Integer, primary_key=True, autoincrement=False, server_default=text("-1")),
        Column("token", BigInteger),
        Column("producer_id", BigInteger),
        Column("producer_epoch", SmallInteger),
        Column("next_sequence", Integer),
        Column("last_offset", BigInteger),
        Column("written_at", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp()),
        schema=schema,
    )


def make_outbox_control_table(
    metadata: MetaData, table_name: str = "outbox_control", *, schema: str | None = None
) -> Table:
    """Declare the control table: pauses that count for all processes, and the audit log of what people did.

    It is optional, and small: a row for each pause, resume, replay and discard. It must be in the database of the
    outbox table. Several outbox tables may share one; each row says in ``outbox`` which of them it is about.

    Args:
        metadata: Where the table is registered.
        table_name: At most 63 bytes.
        schema: The PostgreSQL schema; None is the connection's search path.

    Returns:
        The table, to be passed to ``OutboxBroker(engine, outbox_table=..., control_table=...)``.

    Raises:
        ConfigError: ``metadata`` is no MetaData, or a name is empty or longer than PostgreSQL keeps.

    Example:
        >>> from sqlalchemy import MetaData
        >>> make_outbox_control_table(MetaData()).name
        'outbox_control'
    """
    _check_metadata("make_outbox_control_table", metadata)
    _check_identifier("table_name", table_name)
    _check_schema(schema)
    return Table(
        table_name,
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("outbox", Text, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False, server_default=func.statement_timestamp()),
        Column("who", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("what", JSONB, nullable=False),
        Column("why", Text),
        Column("affected", BigInteger, nullable=False, server_default=text("0")),
        # Of a pause alone.
        Column("until", DateTime(timezone=True)),
        Column("ended_at", DateTime(timezone=True)),
        # What every process reads: the log beside it may be long.
        Index(_name(table_name, "pauses_idx"), "outbox", postgresql_where=text(_IN_FORCE)),
        schema=schema,
    )


def _check_metadata(call: str, metadata: Any) -> None:
    if isinstance(metadata, MetaData):
        return
    name = metadata.__name__ if isinstance(metadata, type) else type(metadata).__name__
    has_one = isinstance(getattr(metadata, "metadata", None), MetaData)
    msg = f"metadata: must be a MetaData, got {name}; write {call}({name if has_one else 'Base'}.metadata)"
    raise ConfigError(msg)


def _check_schema(schema: str | None) -> None:
    if schema is not None:
        _check_identifier("schema", schema)


def _check_identifier(argument: str, name: str) -> None:
    size = len(name.encode(errors="surrogatepass"))
    has_surrogates = size != len(name.encode(errors="ignore"))
    if not 0 < size <= MAX_IDENTIFIER_BYTES or has_surrogates or "\x00" in name:
        msg = f"{argument}: must be 1 to {MAX_IDENTIFIER_BYTES} bytes of UTF-8 without NUL, got {size} bytes"
        raise ConfigError(msg)


def _name(table_name: str, suffix: str) -> str:
    """Name an index or a constraint so that no two of a long table name are cut to the same 63 bytes."""
    name = f"{table_name}_{suffix}"
    if len(name.encode()) <= MAX_IDENTIFIER_BYTES:
        return name
    digest = hashlib.sha256(table_name.encode()).hexdigest()[:8]
    head = table_name.encode()[: MAX_IDENTIFIER_BYTES - len(f"_{digest}_{suffix}")].decode(errors="ignore")
    return f"{head}_{digest}_{suffix}"
