"""A row of the outbox table, as the layers above the store see it."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from faststream_outbox._values.unreadable import Unreadable


class OutboxRow(NamedTuple):
    """One message for one consumer, as it stood in the table when it was read.

    All times are aware and come from the database's clock. A named tuple, since a frozen dataclass takes four times as
    long to make, and every message that is carried is one.
    """

    id: int
    """Grows in publishing order for the rows of one key."""
    queue: str
    key: str | None
    idempotency_key: str
    payload: bytes
    """The body, encoded once when it was published."""
    headers: Mapping[str, str]
    """The caller's headers, with ``content-type`` and ``correlation_id`` where they are known."""
    attempts_count: int
    """Attempts that failed."""
    deliveries_count: int
    """Times that a handler's worker claimed it, the present one included."""
    created_at: datetime
    first_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    """When the last attempt failed. A row that was deferred, as its part of the destination is down, has a time without
    an attempt."""
    acquired_at: datetime | None = None
    """When the present lease began; None where no lease holds the row."""
    timer_id: str | None = None

    @property
    def problem(self) -> str | None:
        """Why no consumer can be given the row, whose ``headers`` then are empty; None for every row of ``publish``."""
        return self.headers.problem if isinstance(self.headers, Unreadable) else None


def identity(row: OutboxRow) -> tuple[int, int]:
    """Return what a fence compares: the row's id and its delivery."""
    return row.id, row.deliveries_count
