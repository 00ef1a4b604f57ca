from datetime import UTC, datetime
from typing import Any

from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.factory import create_destinations

PUBLISHED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def parcel(number: int = 1, *, key: str | None = None, address: str | None = None, **of_row: Any) -> Parcel:
    row = OutboxRow(
        id=number,
        queue="orders",
        key=key,
        idempotency_key=f"i-{number}",
        attempts_count=0,
        deliveries_count=0,
        created_at=PUBLISHED,
        **{"payload": b"%d" % number, "headers": {"correlation_id": "c"}} | of_row,
    )
    return Parcel(row, address)


def outlet_of(publisher: Any, *, allow_lossy: bool) -> Any:
    """What a forwarder knows of a publisher's kind."""
    options: dict[str, Any] = {"lanes": 1, "send_timeout": 1000.0, "allow_lossy": allow_lossy}
    [lane] = create_destinations(publisher, lambda *_: None, **options).lanes
    return lane._outlet  # type: ignore[attr-defined]
