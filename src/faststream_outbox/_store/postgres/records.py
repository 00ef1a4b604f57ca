"""Turns what a statement returns into rows."""

import json
from collections.abc import Sequence
from typing import Any

from faststream_outbox._values.row import OutboxRow


def to_row(record: Sequence[Any]) -> OutboxRow:
    """Read a record whose columns stand in the order that all statements share."""
    row = OutboxRow._make(record)
    if isinstance(row.headers, str):
        # A raw statement leaves JSONB as the driver gave it: text where SQLAlchemy has not set its codec.
        return row._replace(headers=json.loads(row.headers))
    return row
