"""What a local subscriber receives."""

from dataclasses import dataclass, field
from datetime import datetime

from faststream.message import AckStatus, StreamMessage
from sqlalchemy import Transaction
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import SessionTransaction

from faststream_outbox._values.copies import origin_of
from faststream_outbox._values.row import OutboxRow


@dataclass(slots=True)
class Delivery:
    """One run of a handler for one row, and what it said about the row's outcome."""

    row: OutboxRow
    status: AckStatus | None = None
    written_in: list[tuple[AsyncSession | AsyncConnection, Transaction | SessionTransaction | None]] = field(
        default_factory=list,
    )
    """Where the handler's responses were written; the handler's dependency commits the session that it opened."""


class OutboxMessage(StreamMessage[Delivery]):
    """A message from the outbox, as FastStream's pipeline and handlers see it.

    ``ack``, ``nack`` and ``reject`` record a decision; it is written when the handler has ended, together with those of
    other handlers. The first decision counts.

    Example::

        @broker.subscriber("orders", ack_policy=AckPolicy.MANUAL)
        async def handle(body: dict, message: OutboxMessage) -> None:
            await message.reject()  # to the dead letters, whatever the retry strategy says
    """

    async def ack(self) -> None:
        """Call the work done: the row leaves the table."""
        await super().ack()
        self.raw_message.status = self.committed

    async def nack(self) -> None:
        """Call the attempt failed: the retry strategy decides what follows."""
        await super().nack()
        self.raw_message.status = self.committed

    async def reject(self) -> None:
        """Call the row failed for good: it goes to the dead letters."""
        await super().reject()
        self.raw_message.status = self.committed

    @property
    def row(self) -> OutboxRow:
        """The row as it was claimed."""
        return self.raw_message.row

    @property
    def row_id(self) -> int:
        """The row's id; grows in publishing order for the rows of one key."""
        return self.row.id

    @property
    def queue(self) -> str:
        """The queue it was published to."""
        return origin_of(self.row.queue)

    @property
    def key(self) -> str | None:
        """The key that orders it behind earlier messages of that key; None where it has none."""
        return self.row.key

    @property
    def idempotency_key(self) -> str:
        """The same on every delivery of this message, here and behind every destination."""
        return self.row.idempotency_key

    @property
    def attempts_count(self) -> int:
        """Attempts that failed before this one."""
        return self.row.attempts_count

    @property
    def deliveries_count(self) -> int:
        """Deliveries so far, this one included."""
        return self.row.deliveries_count

    @property
    def created_at(self) -> datetime:
        """When it was published, by the database's clock."""
        return self.row.created_at
