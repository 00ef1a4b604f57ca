"""What destinations that send exactly once have in common."""

from collections.abc import Iterable

from faststream_outbox._values.position import Mark
from faststream_outbox._values.row import OutboxRow

LOOK_SECONDS = 10.0
"""How long one hand-over looks; the next one goes on where it has ended."""


class InDoubtError(Exception):
    """It is not known yet what has become of earlier batches."""


def mark_of(row: OutboxRow) -> Mark:
    """Return what the destination keeps of a row."""
    return Mark(row.id, row.idempotency_key)


def marks_of(rows: Iterable[OutboxRow]) -> list[Mark]:
    """Return what the destination keeps of rows."""
    return [mark_of(row) for row in rows]
