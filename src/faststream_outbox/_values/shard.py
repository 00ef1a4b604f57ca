"""One of the parts of a queue."""

from typing import NamedTuple


class Shard(NamedTuple):
    """What one lane works on at a time."""

    queue: str
    number: int
    """From 0 on; the column ``shard`` of its rows."""
