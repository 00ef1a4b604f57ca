"""The seam behind an inbox: entries of messages that a consumer has accepted, in PostgreSQL and in memory."""

from datetime import timedelta
from typing import Any, NamedTuple, Protocol


class Entry(NamedTuple):
    """What one consumer takes for one message."""

    consumer: str
    queue: str
    """The outbox queue; empty where the message comes from elsewhere."""
    idempotency_key: str


class Entries(Protocol):
    """Where entries are kept."""

    async def enter(self, session: Any, entry: Entry, delivery: Any) -> bool:
        """Write an entry in the caller's transaction.

        Args:
            session: The caller's, asynchronous.
            entry: What is accepted.
            delivery: The copy that is handled; its end decides on the entry where there are no transactions.

        Returns:
            Whether it was not there.
        """
        ...

    def enter_sync(self, session: Any, entry: Entry, delivery: Any) -> bool:
        """Write an entry in the transaction of a plain ``Session`` or ``Connection``."""
        ...

    async def prune(self, database: Any, consumer: str, *, older_than: timedelta, batch_size: int) -> int:
        """Delete a consumer's entries that are older than a span; return how many.

        Args:
            database: An engine, for batches in transactions of their own; or a session, for one batch.
            consumer: Whose.
            older_than: By the database's clock.
            batch_size: The most entries that one statement deletes.
        """
        ...

    async def differences(self, engine: Any) -> list[str]:
        """Return one sentence for each difference of the table from its declaration."""
        ...
