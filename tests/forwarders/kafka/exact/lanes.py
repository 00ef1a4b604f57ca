"""A lane's positions over leaders that answer as they are told."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from faststream_outbox._store.memory.positions import MemoryPositions
from faststream_outbox._store.positions import Takeover
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.position import Mark, Part, Position, Producer
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.run import NO_RUN, Run
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.doubt import mark_of
from faststream_outbox.forwarders.kafka.exact.book import Route
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders, Told
from faststream_outbox.forwarders.kafka.exact.look import SEQUENCES, Batch
from faststream_outbox.forwarders.kafka.exact.positions import Books, LanePositions
from faststream_outbox.forwarders.kafka.exact.protocol import Found

SHARD = Shard("orders", 3)
PRODUCER = Producer(7, 0)
NOW = Route("orders", 1)


class Taken:
    """A hand-over of rows of one shard."""

    def __init__(self, rows: Sequence[OutboxRow], tokens: Mapping[Shard, int], run: Run = NO_RUN) -> None:
        self.rows, self.tokens, self.run, self.shards = rows, tokens, run, [SHARD]

    def row_shards(self) -> Sequence[Shard]:
        return [SHARD] * len(self.rows)


class Logs(Leaders):
    """One log, of which each partition is a copy."""

    def __init__(self, *, start: int = 0, end: int = 100, next_sequence: int | None = None) -> None:
        self.start, self.end, self.next_sequence = start, end, next_sequence
        self.ours: list[Batch] = []
        self.asked = 0
        self.asked_for: list[Part] = []
        self.after_telling: Callable[[], None] = lambda: None

    def append(self, *rows: OutboxRow) -> int:
        """Append a batch of the shard, and return its offset."""
        offset, sequence = self.end, self.next_sequence or 0
        self.ours.append(Batch(offset, sequence, len(rows), [mark_of(row) for row in rows]))
        self.end += len(rows)
        self.next_sequence = (sequence + len(rows)) % SEQUENCES
        return offset

    async def new_producer(self) -> Producer:
        return PRODUCER

    async def tell(self, parts: Collection[Part]) -> Mapping[Part, Told | Exception]:
        self.asked += 1
        self.asked_for += parts
        told = {part: Told(self.start, self.end, {PRODUCER.id: self.next_sequence}) for part in parts}
        self.after_telling()
        return told

    async def read(
        self, part: Part, offset: int, producer_ids: Collection[int], most_bytes: int = 0
    ) -> Sequence[Found]:
        ours = [Found(one.offset, one.offset + one.size, PRODUCER.id, one) for one in self.ours if one.offset >= offset]
        return [*ours, Found(self.end - 1, self.end)]


class Lanes:
    """Processes with a lane each, and the table that they share."""

    def __init__(self, logs: Leaders) -> None:
        self.logs = logs
        self.alive: set[Mark] = set()
        self.run = NO_RUN
        self.store = MemoryPositions(lambda: self.alive)
        self.log: list[str] = []

    async def has(self, positions: Mapping[Part, Position]) -> None:
        """Let a process have written positions, and have ended."""
        await self.store.take_over("f", [Takeover(SHARD, None, 1, PRODUCER)])
        self.store.move("f", {SHARD: cast("Any", (1, 1, positions))})

    def process(self) -> LanePositions:
        positions = LanePositions(Books(lambda: "f", self.store, lambda _level, line, _error: self.log.append(line)))
        positions.leaders, positions.routing = self.logs, lambda: NOW
        return positions

    async def look(self, process: LanePositions, *rows: OutboxRow) -> Collection[int]:
        """Let a process begin a hand-over of these rows."""
        return await process.look(cast("HandOver", Taken(rows, self.store.tokens("f", [SHARD]), self.run)))
