"""A row that failed for good, and which of them are meant."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from faststream_outbox._values.row import OutboxRow


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A row that failed for good, parked in the outbox table or moved to the dead-letter table."""

    row: OutboxRow
    failed_at: datetime
    reason: str
    """A short stable word: ``retries_exhausted``, ``rejected``, ``max_deliveries``, ``too_large`` or ``invalid``."""
    exception: str | None
    """What the last attempt raised."""
    holds_key: bool = False
    """Whether the later rows of its key wait until it is replayed or discarded (``hold_key=True``)."""
    size: int | None = None
    """Bytes of the whole payload, of which ``row`` may have a part (``list(..., max_bytes=)``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those that agree with all that is given."""

    queue: str | None = None
    key: str | None = None
    reason: str | None = None
    failed_after: datetime | None = None
    """At that time or later."""
    failed_before: datetime | None = None
    """Earlier than that time."""
    older_than: timedelta | None = None
    """Earlier than so long ago, by the database's clock."""
    exception: str | None = None
    """A part of the exception's text."""
    kind: str | None = None
    """The exception's type, as ``DeadLetterGroup.kind`` has it; empty for those without an exception."""
    ids: tuple[int, ...] | None = None
    """With one of these ids."""
