"""What the database says of itself and of the tables, for people who look for what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The server, the database and the role that asks."""

    version: str
    database: str
    role: str
    takes_writes: bool
    is_standby: bool
    is_pooled: bool
    """Whether another program stands between: the process that answers is not the one that was connected to."""
    connections: int
    """Of clients, on the whole server."""
    most_connections: int
    """What ordinary roles may have together."""
    role_connections: int
    role_limit: int | None
    database_connections: int
    database_limit: int | None
    statement_timeout_ms: int
    """Of this role; 0 is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """A table, as the server's statistics have it."""

    table: str
    estimated_rows: int
    """The planner's estimate; -1 where nobody has looked yet."""
    dead_rows: int
    """An estimate of the rows that are deleted and not cleaned up."""
    table_bytes: int
    index_bytes: int
    last_vacuum: datetime | None
    """By autovacuum or by hand."""
    last_analyze: datetime | None
    options: Sequence[str]
    """Storage parameters of the table itself, such as ``autovacuum_enabled=false``."""
    has_row_security: bool
    triggers: Sequence[str]
    """Enabled triggers of the owner's own."""
    rows_inserted: int = 0
    """Since the server's statistics began: two looks give the rows that were written in between."""
    rows_deleted: int = 0
    """Since the server's statistics began: rows that were delivered, moved or discarded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """An index in the database."""

    table: str
    name: str
    is_valid: bool
    """False where CREATE INDEX CONCURRENTLY has failed or is at work: no look uses the index."""
    is_unique: bool
    columns: Sequence[str]
    predicate: str | None
    """What a partial index is restricted to, in the server's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """What keeps PostgreSQL from cleaning up deleted rows."""

    kind: str
    """``session``, ``prepared transaction`` or ``replication slot``."""
    name: str
    """The process, the transaction or the slot."""
    user: str | None
    application: str | None
    state: str | None
    seconds: float | None
    """Since its transaction began; None where the server does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """How the planner would run a statement now."""

    statement: str
    scans: Sequence[str]
    """How each table is read, such as ``Index Scan using outbox_ready_idx``."""
    reads_whole_table: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockerFacts:
    """A session for which others wait that work on the tables."""

    pid: int
    """0 for a prepared transaction."""
    user: str | None
    application: str | None
    state: str | None
    seconds: float | None
    """Since its transaction began; None where the server does not say."""
    waiting: int
    """How many sessions wait for it."""
