"""The tables of one broker in PostgreSQL."""

from collections.abc import Callable
from functools import cached_property

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.dead_letters import PostgresDeadLetters
from faststream_outbox._store.postgres.endings import Warn
from faststream_outbox._store.postgres.examiner import PostgresExaminer
from faststream_outbox._store.postgres.onlooker import PostgresOnlooker
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox._values.outcome import TextOf, describe


class PostgresStorage:
    """The parts of one pair of tables; what only people ask for is made when they ask.

    Args:
        engine: The caller's engine.
        outbox_table: The declared table of rows.
        dlq_table: The declared dead-letter table; None parks rows that failed for good.
        position_table: The declared position table; None where no forwarder sends exactly once.
        control_table: The declared control table; None where no pause is stored and no audit log kept.
        listen_engine: Where to listen, if not on ``engine``.
        notify: Whether an insert wakes listeners.
        waker: Returns what wakes consumers of this process after a commit; None where notifications do.
        warn: Writes a warning to the log.
        text_of: Returns what is kept of exceptions.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        dlq_table: Table | None,
        position_table: Table | None = None,
        *,
        control_table: Table | None = None,
        listen_engine: AsyncEngine | None,
        notify: bool,
        waker: Callable[[], Callable[[str], None] | None],
        warn: Warn,
        text_of: TextOf = describe,
    ) -> None:
        self._engine = engine
        self._tables = (outbox_table, dlq_table)
        self._others = [table for table in (position_table, control_table) if table is not None]
        self._listen_engine = listen_engine
        self.store = PostgresStore(
            engine,
            outbox_table,
            dlq_table,
            position_table,
            control_table=control_table,
            listen_engine=listen_engine,
            text_of=text_of,
        )
        self.writer = PostgresWriter(engine, outbox_table, notify=notify, waker=waker, warn=warn)
        self.controls = self.store.controls
        self.dead_letters = PostgresDeadLetters(engine, outbox_table, dlq_table, controls=self.controls)

    @cached_property
    def onlooker(self) -> PostgresOnlooker:
        """What counts and shows rows."""
        return PostgresOnlooker(self._engine, *self._tables)

    @cached_property
    def examiner(self) -> PostgresExaminer:
        """What reads the facts that findings are made of."""
        return PostgresExaminer(self._engine, *self._tables, others=self._others, listen_engine=self._listen_engine)
