"""What a lane needs of a destination that takes each row once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard


class Positions(Protocol):
    """Where the shards of one lane's hand-over stand at its destination."""

    @property
    def forwarder(self) -> str:
        """The name under which they are kept."""

    def begin(self) -> None:
        """Begin a hand-over, which need not look: it may have no rows to send."""

    async def look(self, taken: HandOver) -> Collection[int]:
        """Find out which of the rows are delivered already, and return their ids.

        Where that cannot be known now, the destination sends none of the rows in question.

        Raises:
            Exception: What the database raises.
        """

    def doubt(self, row: OutboxRow) -> Exception | None:
        """Return why it is not known whether a row is delivered already; None where it is known that it is not."""

    def moves(self, delivered: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        """Return what is to be written with these rows."""

    def stay_behind(self, moves: Mapping[Shard, Move], kept: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        """Return what is to be written after these moves, so that the next process finds rows that stay in the table.

        Args:
            moves: What was written with the rows that are delivered, and is not committed.
            kept: Those of them that the database refuses to delete.
        """

    def written(self, moves: Mapping[Shard, Move]) -> None:
        """Note that the hand-over is committed. Without this call, all of it stays in doubt."""


@runtime_checkable
class Positioned(Protocol):
    """A destination that has them."""

    positions: Positions
