"""Turns what a statement returns into rows."""

import json
from collections.abc import Sequence
from typing import Any

from faststream_outbox._values.row import OutboxRow


def to_row(record: Sequence[Any]) -> OutboxRow:
    """Read a record whose columns stand in the order that all statements share."""
    headers = record[5]
    return OutboxRow(
        id=record[0],
        queue=record[1],
        key=record[2],
        idempotency_key=record[3],
        payload=bytes(record[4]),
        # A raw statement leaves JSONB as the driver gave it: text from asyncpg.
        headers=json.loads(headers) if isinstance(headers, str) else headers,
        attempts_count=record[6],
        deliveries_count=record[7],
        created_at=record[8],
        first_attempt_at=record[9],
        last_attempt_at=record[10],
        acquired_at=record[11],
        timer_id=record[12],
    )
