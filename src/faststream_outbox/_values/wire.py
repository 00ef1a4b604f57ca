"""What a row looks like to whoever receives it, here or behind a broker."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from faststream_outbox._values.copies import origin_of
from faststream_outbox._values.row import OutboxRow

IDEMPOTENCY_KEY = "idempotency-key"
ROW_ID = "outbox-id"
QUEUE = "outbox-queue"
CREATED_AT = "outbox-created-at"
ROW_KEY = "outbox-key"


HeadersOf: TypeAlias = Callable[[OutboxRow], dict[str, str]]
"""Gives the headers that a row is sent with."""


class _Rfc3339:
    """Remembers the last time that it wrote: rows of one transaction share theirs, and are sent one after the other.

    To compare costs a twentieth of writing, which is half of what all headers of a row take.
    """

    def __init__(self) -> None:
        self._last: tuple[datetime | None, str] = (None, "")

    def __call__(self, moment: datetime) -> str:
        """Write an aware time as RFC 3339 asks, in UTC."""
        last, text = self._last
        if moment != last:
            text = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
            self._last = (moment, text)
        return text


rfc3339 = _Rfc3339()


def wire_headers(row: OutboxRow) -> dict[str, str]:
    """Give the caller's headers, and those that carry the row's identity. Every consumer gets the same ones."""
    return {
        **row.headers,
        IDEMPOTENCY_KEY: row.idempotency_key,
        ROW_ID: str(row.id),
        QUEUE: origin_of(row.queue),
        CREATED_AT: rfc3339(row.created_at),
    }
