"""Where a forwarder stands in the partitions of its destination, as the position table keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Mark(NamedTuple):
    """What a record says of the row that it was made of."""

    row_id: int
    idempotency_key: str


class Position(NamedTuple):
    """How far the rows of one shard have come in one partition."""

    next_sequence: int
    """Of the next record batch."""
    last_offset: int
    """All records of the shard up to here are settled; -1 before the first offset."""


class Producer(NamedTuple):
    """The name under which the rows of one shard are sent, for good."""

    id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Held:
    """What the position table has of one shard, for the process that has just taken it over."""

    token: int
    """Changes with each write; a process whose token is in the table has written last."""
    producer: Producer
    positions: Mapping[Part, Position]


class Move(NamedTuple):
    """What a hand-over writes of one shard."""

    token: int
    """The one that the table has."""
    new_token: int
    positions: Mapping[Part, Position]
    """Those that have changed."""
