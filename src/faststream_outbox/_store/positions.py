"""What forwarders that send exactly once need of a store: how far they have come."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from faststream_outbox._values.position import Held, Mark, Move, Part, Producer
from faststream_outbox._values.shard import Shard

NO_MOVES: Mapping[Shard, Move] = {}


class Takeover(NamedTuple):
    """A shard that a process wants to send rows of, while another one may have sent some."""

    shard: Shard
    seen: int | None
    """The token that the position table has; None where it does not know the shard."""
    token: int
    """The one to be written."""
    producer: Producer | None = None
    """For a shard that it does not know."""


class NewParts(NamedTuple):
    """Partitions that a shard begins to send to."""

    shard: Shard
    token: int
    """The one that the position table has to have."""
    ends: Mapping[Part, int]
    """Where their logs end."""


class PositionStore(Protocol):
    """Where forwarders stand that send exactly once. Every method is one transaction of its own."""

    async def take_over(self, forwarder: str, takeovers: Sequence[Takeover]) -> Mapping[Shard, Held]:
        """Write tokens, and return what was there of these shards.

        A shard of which the token is not the one that was seen is left out: another process has written since.
        """

    async def open(self, forwarder: str, new_parts: Sequence[NewParts]) -> Mapping[Shard, Collection[Part]]:
        """Begin partitions, and return those that were begun.

        A shard is left out if its token is another one, or if it has begun all of its partitions before.
        """

    async def alive(self, marks: Collection[Mark]) -> Collection[Mark]:
        """Return those of these messages that are still in the outbox table, but for dead letters."""
