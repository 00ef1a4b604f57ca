"""Turns what a statement returns into rows."""

import json
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from faststream_outbox._values.row import OutboxRow

COLUMNS = len(OutboxRow._fields)
HEADERS = OutboxRow._fields.index("headers")

id_of = itemgetter(OutboxRow._fields.index("id"))
place_of = itemgetter(OutboxRow._fields.index("queue"), COLUMNS)
"""Reads queue and shard of a record in which the shard follows a row's columns."""
all_bytes_of = itemgetter(COLUMNS + 1)
"""Reads what follows then."""


def to_rows(records: Sequence[Sequence[Any]]) -> list[OutboxRow]:
    """Read records that begin with the columns of a row, in the order that all statements share."""
    if not records:
        return []
    columns = [*zip(*records, strict=True)][:COLUMNS]
    # Headers come as text: SQLAlchemy's codec for jsonb takes twice as long, and may be another on the user's engine.
    # All texts are read as one: a call for each would take longer than the reading itself.
    columns[HEADERS] = json.loads(f"[{','.join(columns[HEADERS])}]")
    return [*map(OutboxRow._make, zip(*columns, strict=True))]
