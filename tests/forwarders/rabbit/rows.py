"""Rows to send."""

from datetime import UTC, datetime
from typing import Any

from faststream_outbox._values.row import OutboxRow

CREATED_AT = datetime(2026, 11, 24, 12, 30, 15, 123456, tzinfo=UTC)


def row(**values: Any) -> OutboxRow:
    defaults: dict[str, Any] = {"id": 7, "queue": "orders", "key": None, "idempotency_key": "i", "payload": b"abc"}
    defaults |= {"headers": {}, "attempts_count": 0, "deliveries_count": 0, "created_at": CREATED_AT}
    return OutboxRow(**(defaults | values))


class Clock:
    """Stands in for the module ``time``, and goes on when the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now
