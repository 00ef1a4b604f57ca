"""The position table in PostgreSQL."""

from typing import Any

import pytest
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, SchemaError
from faststream_outbox._store.postgres.settler import PositionsLostError
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.outcome import DELIVERED, Settlement
from faststream_outbox._values.position import Move, Position
from faststream_outbox._values.shard import Shard
from tests.store.suite.positions import FORWARDER, ONE, Positions, begin
from tests.store.suite.subject import shards


@pytest.fixture
async def store(engine: AsyncEngine, tables: MetaData) -> PostgresStore:
    broker = OutboxBroker(engine, outbox_table=tables.tables["outbox"], logger=None)
    async with engine.begin() as connection:
        await broker.publish(b"", queue="q", key="k", session=connection)
    return PostgresStore(engine, tables.tables["outbox"], None, tables.tables["outbox_position"])


@pytest.fixture
async def shard(store: PostgresStore) -> Shard:
    async with store.hand_over(shards(), limit=1) as hand_over:
        assert hand_over is not None
        return hand_over.shards[0]


class TestPostgresPositions(Positions):
    pass


async def settle(store: PostgresStore, shard: Shard, token: int) -> None:
    async with store.hand_over([shard], limit=1, forwarder=FORWARDER) as hand_over:
        assert hand_over is not None
        moves = {shard: Move(token, 9, {ONE: Position(1, 100)})}
        await hand_over.settle([Settlement(row, DELIVERED) for row in hand_over.rows], moves)


@pytest.mark.parametrize("is_careful", [False, True])
async def test_a_foreign_token_stops_the_whole_hand_over(
    store: PostgresStore, shard: Shard, engine: AsyncEngine, is_careful: bool, monkeypatch: Any
) -> None:
    await begin(store, shard)
    if is_careful:
        # As after an outcome that PostgreSQL has refused.
        monkeypatch.setattr(store._settler, "_careful_until", float("inf"))
    with pytest.raises(PositionsLostError):
        await settle(store, shard, token=5)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM outbox")) == 1
    await settle(store, shard, token=1)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM outbox")) == 0
        assert await connection.scalar(text("SELECT next_sequence FROM outbox_position WHERE topic = 'orders'")) == 1


@pytest.mark.parametrize("is_careful", [False, True])
async def test_where_a_person_has_deleted_a_position_nothing_is_committed(
    store: PostgresStore, shard: Shard, engine: AsyncEngine, is_careful: bool, monkeypatch: Any
) -> None:
    await begin(store, shard)
    if is_careful:
        monkeypatch.setattr(store._settler, "_careful_until", float("inf"))
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM outbox_position WHERE topic = 'orders'"))
    with pytest.raises(PositionsLostError):
        await settle(store, shard, token=1)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM outbox")) == 1
        assert await connection.scalar(text("SELECT token FROM outbox_position WHERE topic = ''")) == 1


async def test_a_missing_position_table_is_named(engine: AsyncEngine, tables: MetaData) -> None:
    broker = OutboxBroker(
        engine, outbox_table=tables.tables["outbox"], position_table=tables.tables["outbox_position"], logger=None
    )
    await broker.validate_schema()
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE outbox_position"))
    with pytest.raises(SchemaError, match="outbox_position: there is no such table"):
        await broker.validate_schema()
