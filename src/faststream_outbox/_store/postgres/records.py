"""Turns what a statement returns into rows."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.unreadable import Unreadable, as_headers
from faststream_outbox.schema import MAX_STORED_HEADERS_BYTES

COLUMNS = len(OutboxRow._fields)
HEADERS = OutboxRow._fields.index("headers")

id_of = itemgetter(OutboxRow._fields.index("id"))
shard_of = itemgetter(OutboxRow._fields.index("queue"), COLUMNS)
"""Reads queue and shard of a record in which the shard follows a row's columns."""
all_bytes_of = itemgetter(COLUMNS + 1)
"""Reads what follows then."""
is_cut_of = itemgetter(COLUMNS)
"""Reads what follows a row's columns in a claim."""


def to_rows(records: Sequence[Sequence[Any]]) -> list[OutboxRow]:
    """Read records that begin with the columns of a row, in the order that all statements share."""
    if not records:
        return []
    columns: list[Any] = [*zip(*records, strict=True)][:COLUMNS]
    columns[HEADERS] = _read(columns[HEADERS])
    return [*map(OutboxRow._make, zip(*columns, strict=True))]


def _read(texts: Sequence[str | None]) -> Sequence[Mapping[str, str]]:
    """Read the headers of each row; those that cannot be read are the trouble of their own row alone."""
    # Headers come as text: SQLAlchemy's codec for jsonb takes twice as long, and may be another on the user's engine.
    # All texts are read as one: a call for each would take longer than the reading itself.
    try:
        headers: list[Any] = json.loads(f"[{','.join(texts)}]")  # type: ignore[arg-type]
        # Both sets are made without a loop in Python.
        if {*map(type, headers)} == {dict} and {*map(type, chain.from_iterable(map(dict.values, headers)))} <= {str}:
            return headers
    except (TypeError, ValueError, RecursionError):
        # SQL can write what PostgreSQL takes and Python does not: numbers of any length, objects in objects in objects.
        pass
    return [*map(_read_alone, texts)]


def _read_alone(text: str | None) -> Mapping[str, str]:
    if text is None:
        return Unreadable(f"they take more than {MAX_STORED_HEADERS_BYTES} bytes")
    try:
        return as_headers(json.loads(text))
    except (ValueError, RecursionError) as error:
        return Unreadable(f"{type(error).__name__}: {error}")
