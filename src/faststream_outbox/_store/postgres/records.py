"""Turns what a statement returns into rows."""

import json
from collections.abc import Sequence
from typing import Any

from faststream_outbox._values.row import OutboxRow

COLUMNS = len(OutboxRow._fields)


def to_row(record: Sequence[Any]) -> OutboxRow:
    """Read a record that begins with the columns of a row, in the order that all statements share."""
    # Headers come as text: SQLAlchemy's codec for jsonb takes twice as long, and may be another on the user's engine.
    return OutboxRow._make((*record[:5], json.loads(record[5]), *record[6:COLUMNS]))
