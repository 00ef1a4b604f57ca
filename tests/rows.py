"""A row as a store hands it out."""

from datetime import UTC, datetime
from typing import Any

from faststream_outbox import OutboxRow


def make_row(row_id: int = 1, *, queue: str = "orders", deliveries: int = 1, **values: Any) -> OutboxRow:
    """Return a row that was claimed once; the other values are those of its columns."""
    defaults: dict[str, Any] = {
        "key": None,
        "idempotency_key": f"id-{row_id}",
        "payload": b"",
        "headers": {},
        "attempts_count": 0,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return OutboxRow(id=row_id, queue=queue, deliveries_count=deliveries, **(defaults | values))
