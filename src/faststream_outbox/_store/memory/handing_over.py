"""The rows of one hand-over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from faststream_outbox._store.memory.records import Record
from faststream_outbox._store.positions import NO_MOVES
from faststream_outbox._values.outcome import Settlement, Unwritten
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.run import NO_RUN
from faststream_outbox._values.shard import Shard


@dataclass
class MemoryHandOver:
    """Rows that no one else is given until the hand-over ends."""

    shards: Sequence[Shard]
    vacant: Sequence[Shard]
    has_more: bool
    is_whole: bool
    records: Sequence[Record]
    acquired_at: datetime
    tokens: Mapping[Shard, int] = field(default_factory=dict)
    moves: dict[Shard, Move] = field(default_factory=dict)
    settlements: list[Settlement] = field(default_factory=list)
    rows: Sequence[OutboxRow] = field(init=False)
    run = NO_RUN

    def __post_init__(self) -> None:
        self.rows = [record.row._replace(acquired_at=self.acquired_at) for record in self.records]

    def row_shards(self) -> Sequence[Shard]:
        return [record.shard for record in self.records]

    async def settle(
        self, settlements: Sequence[Settlement], moves: Mapping[Shard, Move] = NO_MOVES
    ) -> Sequence[Unwritten]:
        self.settlements.extend(settlements)
        self.moves.update(moves)
        return []
