"""A row on its way."""

from typing import NamedTuple

from faststream_outbox._values.row import OutboxRow


class Parcel(NamedTuple):
    """A row as it is sent."""

    row: OutboxRow
    """With the key and the headers that it is sent with; its id is that of the table."""
    address: str | None = None
    """Where to, if not to the destination's own address: a topic, a routing key, a stream."""
