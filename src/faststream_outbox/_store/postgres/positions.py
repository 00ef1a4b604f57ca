"""The position table: who has written a shard last, and where it stands."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox._store.positions import NewParts, Takeover
from faststream_outbox._store.postgres.driver import Record
from faststream_outbox._store.postgres.settler import PositionsLostError, Way
from faststream_outbox._store.postgres.statements import PositionStatements
from faststream_outbox._values.position import Held, Mark, Move, Part, Position, Producer
from faststream_outbox._values.shard import Shard


class PostgresPositions:
    """Positions of forwarders, in transactions of their own: they are final before anything is sent.

    Args:
        engine: With transactions of READ COMMITTED.
        statements: For this table.
    """

    def __init__(self, engine: AsyncEngine, statements: PositionStatements) -> None:
        self._engine = engine
        self._statements = statements

    async def take_over(self, forwarder: str, takeovers: Sequence[Takeover]) -> Mapping[Shard, Held]:
        shards = {"queues": [one.shard.queue for one in takeovers], "shards": [one.shard.number for one in takeovers]}
        async with self._engine.begin() as connection:
            held = await self._take_seen(connection, forwarder, [one for one in takeovers if one.seen is not None])
            held += await self._begin(connection, forwarder, [one for one in takeovers if one.seen is None])
            records = await connection.run_sync(self._statements.list.execute, {"forwarder": forwarder, **shards})
        positions: defaultdict[Shard, dict[Part, Position]] = defaultdict(dict)
        for queue, number, topic, partition, next_sequence, last_offset in map(tuple, records):
            positions[Shard(queue, number)][Part(topic, partition)] = Position(next_sequence, last_offset)
        return {
            Shard(queue, number): Held(token, Producer(producer_id, epoch), positions[Shard(queue, number)])
            for queue, number, token, producer_id, epoch in map(tuple, held)
        }

    async def _take_seen(self, connection: AsyncConnection, forwarder: str, seen: Sequence[Takeover]) -> list[Record]:
        if not seen:
            return []
        wanted = {**_columns(forwarder, seen), "seen": [one.seen for one in seen]}
        return [*await connection.run_sync(self._statements.take_over.execute, wanted)]

    async def _begin(self, connection: AsyncConnection, forwarder: str, first: Sequence[Takeover]) -> list[Record]:
        if not first:
            return []
        producers = [one.producer for one in first if one.producer is not None]
        wanted = {
            **_columns(forwarder, first),
            "producer_ids": [producer.id for producer in producers],
            "producer_epochs": [producer.epoch for producer in producers],
        }
        return [*await connection.run_sync(self._statements.begin.execute, wanted)]

    async def open(self, forwarder: str, new_parts: Sequence[NewParts]) -> Mapping[Shard, Collection[Part]]:
        parts = [(one.shard, part, end) for one in new_parts for part, end in one.ends.items()]
        wanted = {
            **_columns(forwarder, new_parts),
            "part_queues": [shard.queue for shard, _, _ in parts],
            "part_shards": [shard.number for shard, _, _ in parts],
            "topics": [part.topic for _, part, _ in parts],
            "partitions": [part.partition for _, part, _ in parts],
            "last_offsets": [end - 1 for _, _, end in parts],
        }
        async with self._engine.begin() as connection:
            records = await connection.run_sync(self._statements.open.execute, wanted)
        begun: defaultdict[Shard, set[Part]] = defaultdict(set)
        for queue, number, topic, partition in map(tuple, records):
            begun[Shard(queue, number)].add(Part(topic, partition))
        return begun

    async def alive(self, marks: Collection[Mark]) -> Collection[Mark]:
        wanted = {
            "ids": [mark.row_id for mark in marks],
            "idempotency_keys": [mark.idempotency_key for mark in marks],
        }
        async with self._engine.begin() as connection:
            records = await connection.run_sync(self._statements.alive.execute, wanted)
        return {Mark(*record) for record in map(tuple, records)}


@dataclass(frozen=True, slots=True)
class PostgresMover:
    """What a hand-over moves with the rows that it settles."""

    statements: PositionStatements
    forwarder: str
    moves: Mapping[Shard, Move]

    def with_rows(self, way: Way, connection: Connection) -> Way:
        """Return the way of delivered rows, which takes the positions along in the same statement."""
        return way._replace(
            statement=self.statements.settle_delivered_moved,
            beside=self._parameters(),
            check=partial(self._check, connection),
        )

    def move(self, connection: Connection) -> None:
        """Move the positions alone.

        Raises:
            PositionsLostError: Another process has written them.
        """
        [(is_moved,)] = self.statements.move.execute(connection, self._parameters())
        if not is_moved:
            raise PositionsLostError

    def _check(self, connection: Connection) -> None:
        wanted = {**self._shards(), **self._parts()}
        [counts] = self.statements.held.execute(connection, wanted)
        # A person may have deleted positions.
        if tuple(counts) != (len(self.moves), len(wanted["topics"])):
            raise PositionsLostError

    def _shards(self) -> dict[str, Any]:
        return {
            "forwarder": self.forwarder,
            "moved_queues": [shard.queue for shard in self.moves],
            "moved_shards": [shard.number for shard in self.moves],
            "new_tokens": [move.new_token for move in self.moves.values()],
        }

    def _parts(self) -> dict[str, Any]:
        parts = [(shard, part) for shard, move in self.moves.items() for part in move.positions]
        return {
            "part_queues": [shard.queue for shard, _ in parts],
            "part_shards": [shard.number for shard, _ in parts],
            "topics": [part.topic for _, part in parts],
            "partitions": [part.partition for _, part in parts],
        }

    def _parameters(self) -> dict[str, Any]:
        positions = [position for move in self.moves.values() for position in move.positions.values()]
        return {
            **self._shards(),
            **self._parts(),
            "tokens": [move.token for move in self.moves.values()],
            "next_sequences": [position.next_sequence for position in positions],
            "last_offsets": [position.last_offset for position in positions],
            "held": len(self.moves),
            "moved": len(positions),
        }


def _columns(forwarder: str, shards: Sequence[Takeover] | Sequence[NewParts]) -> dict[str, Any]:
    return {
        "forwarder": forwarder,
        "queues": [one.shard.queue for one in shards],
        "shards": [one.shard.number for one in shards],
        "tokens": [one.token for one in shards],
    }
