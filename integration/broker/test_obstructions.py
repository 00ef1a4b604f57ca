"""A session that keeps the lock of a shard, as any role that may connect can, is named in the log and in the status."""

import logging

import pytest
from faststream.kafka import KafkaBroker
from sqlalchemy import Table as SqlTable
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox._engine.watching import obstructions
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox.forwarders import forwarder as forwarder_module
from tests.store.suite import shards

from .conftest import MakeBroker
from .observing import LogLines, Table, eventually

BY_NAME = "SELECT pg_advisory_lock(hashtextextended('outbox/' || queue, shard)), pg_backend_pid() FROM outbox"
BY_OID = (
    "SELECT pg_advisory_lock(hashtextextended('outbox ' || 'outbox'::regclass::oid || '/' || queue, shard)), "
    "pg_backend_pid() FROM outbox"
)


@pytest.mark.parametrize("lock", [BY_NAME, BY_OID], ids=["name", "oid"])
async def test_who_holds_a_shard_is_named_until_it_lets_go(
    *,
    make_broker: MakeBroker,
    session: AsyncSession,
    table: Table,
    log: LogLines,
    database_url: str,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    lock: str,
) -> None:
    monkeypatch.setattr(obstructions, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(forwarder_module, "DATABASE_SECONDS", 0.0)
    await table.query("DROP ROLE IF EXISTS eve")
    await table.query("CREATE ROLE eve LOGIN PASSWORD 'secret'")
    await table.query("GRANT SELECT ON outbox TO eve")
    eves = create_async_engine(make_url(database_url).set(username="eve", password="secret"))
    # Nobody is there, and nobody is needed: rows that cannot be taken are sent nowhere.
    kafka = KafkaBroker("127.0.0.1:9", acks="all")
    broker = make_broker(logger=log)
    forwarder = broker.forwarder("q", to=kafka.publisher("t"), send_timeout=1.0)
    await broker.publish(1, queue="q", key="k", session=session)
    await session.commit()
    try:
        async with eves.connect() as eve:
            await eve.execution_options(isolation_level="AUTOCOMMIT")
            pid = (await eve.execute(text(lock))).one()[1]
            await broker.start()
            [line] = await eventually(lambda: log.containing("holds the lock of shards that have rows"), within=20)
            assert line.startswith(f"pid {pid} of user 'eve', seen for ")
            [blocked_by] = (await forwarder.status()).blocked_by
            assert blocked_by.startswith(f"pid {pid} of user 'eve', seen for ")
            assert await table.count() == 1
            await table.query("SELECT pg_terminate_backend(:pid, 5000)", pid=pid)
            await eve.invalidate()
            await eventually(forwarder_is_free(forwarder))
    finally:
        await broker.stop()
        await eves.dispose()
        await table.query("DROP OWNED BY eve")
        await table.query("DROP ROLE eve")
    assert [line for line in log.at_least(logging.WARNING) if "holds" in line] == [line]


def forwarder_is_free(forwarder: forwarder_module.OutboxForwarder) -> object:
    async def is_free() -> bool:
        return (await forwarder.status()).blocked_by == ()

    return is_free


async def test_shards_without_rows_are_nobodys(engine: AsyncEngine, outbox_table: SqlTable) -> None:
    store = PostgresStore(engine, outbox_table)
    every = text("SELECT pg_advisory_lock(hashtextextended('outbox/q', s)) FROM generate_series(0, 15) AS s")
    written = text(
        "INSERT INTO outbox (queue, key, idempotency_key, payload) VALUES ('q', 'k', 'i', '') RETURNING shard"
    )
    async with engine.connect() as connection:
        await connection.execute(every)
        assert await store.holders(shards("q")) == []
        async with engine.begin() as other:
            shard = (await other.execute(written)).scalar_one()
        [holder] = await store.holders(shards("q"))
    assert holder.shard == ("q", shard)
    assert "in a transaction since " in holder.who
