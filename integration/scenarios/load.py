"""Rows to carry: published at a rate or as a backlog, entered into the ledger's book, and some of it rolled back."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Table, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from integration.ledger.book import Letter, publish

BACKLOG_TRANSACTION = 500
BULK_BOOK = text("""
    INSERT INTO book (identity, queue, key, body, headers)
    SELECT CAST(:name AS text) || '-' || n, :queue, CAST(:name AS text) || '-key-' || n % CAST(:keys AS int),
        decode(repeat(md5(n::text), 6), 'hex'), '{}'
    FROM generate_series(1, CAST(:rows AS int)) AS n
    ORDER BY n
""")
BULK_OUTBOX = text("""
    INSERT INTO outbox (queue, key, idempotency_key, payload)
    SELECT queue, key, identity, body FROM book ORDER BY number
""")
DATABASE_ERRORS = (SQLAlchemyError, OSError)


class Load:
    """Publishes messages of one queue in transactions of its own.

    Args:
        seed: of keys, bodies and rollbacks.
        name: begins identities and keys; two loads have no key in common, and so no order between them.
        keys: how many.
        keyless: the share of messages that have none.
        rollbacks: the share of transactions that are rolled back.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        *,
        seed: int,
        queue: str = "orders",
        keys: int = 50,
        keyless: float = 0.1,
        rollbacks: float = 0.05,
        name: str = "m",
    ) -> None:
        self.committed_at: dict[str, float] = {}
        """By `time.monotonic`, when this process heard of the commit."""
        self.failures = 0
        """Transactions that ended with an error of the database; what became of them, the book knows."""
        self._engine = engine
        self._broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
        self._draw = random.Random(seed)
        self._queue = queue
        self._keys = keys
        self._keyless = keyless
        self._rollbacks = rollbacks
        self._name = name
        self._count = 0

    async def backlog(self, rows: int) -> None:
        """Publish so many rows as fast as they can be written, with nothing rolled back."""
        while rows > 0:
            letters = self._letters(min(rows, BACKLOG_TRANSACTION))
            rows -= len(letters)
            await self._transaction(letters, rollback=False)

    async def bulk(self, rows: int) -> None:
        """Make so many rows inside of the database: more than a test has the time to publish."""
        values = {"name": self._name, "queue": self._queue, "keys": self._keys, "rows": rows}
        async with self._engine.begin() as connection:
            await connection.execute(BULK_BOOK, values)
            await connection.execute(BULK_OUTBOX)

    @asynccontextmanager
    async def flowing(self, rows_per_second: float, *, per_transaction: int = 10) -> AsyncIterator[None]:
        """Publish at a rate while it is entered; errors of the database are counted, and it goes on."""
        enough = asyncio.Event()
        task = asyncio.create_task(self._flow(per_transaction / rows_per_second, per_transaction, enough))
        try:
            yield
        finally:
            enough.set()
            await task

    async def _flow(self, interval: float, per_transaction: int, enough: asyncio.Event) -> None:
        due = time.monotonic()
        while not enough.is_set():
            letters = self._letters(per_transaction)
            try:
                await self._transaction(letters, rollback=self._draw.random() < self._rollbacks)
            except DATABASE_ERRORS:
                self.failures += 1
                due = time.monotonic() + 0.1
            # What it cannot keep up with is left out, and not made up for in a burst.
            due = max(due + interval, time.monotonic() - 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), max(0.0, due - time.monotonic()))

    async def _transaction(self, letters: list[Letter], *, rollback: bool) -> None:
        async with self._engine.connect() as connection:
            await publish(self._broker, connection, self._queue, letters)
            if rollback:
                await connection.rollback()
                return
            await connection.commit()
        now = time.monotonic()
        self.committed_at.update((letter.identity, now) for letter in letters)

    def _letters(self, count: int) -> list[Letter]:
        return [self._letter() for _ in range(count)]

    def _letter(self) -> Letter:
        self._count += 1
        key = None if self._draw.random() < self._keyless else f"{self._name}-key-{self._draw.randrange(self._keys)}"
        return Letter(f"{self._name}-{self._count}", key, self._draw.randbytes(200))
