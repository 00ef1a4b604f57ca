"""``broker.admin.examine``: each fault is found on a real server, with its cause."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import MetaData, Table, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox import OutboxBroker, make_dlq_table, make_outbox_table
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox.admin import Finding, Grade, OutboxAdmin, make_admin
from integration.servers.postgres import PostgresServer


@pytest.fixture
def admin(engine: AsyncEngine, outbox_table: Table, dlq_table: Table) -> OutboxAdmin:
    return make_admin(engine, outbox_table=outbox_table, dlq_table=dlq_table)


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Another session, which breaks things."""
    engine = create_async_engine(database_url, isolation_level="AUTOCOMMIT")
    yield engine
    await engine.dispose()


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def put(engine: AsyncEngine, queue: str = "orders", *, age: str = "0 s", count: int = 1) -> None:
    await run(
        engine,
        "INSERT INTO outbox (queue, key, idempotency_key, payload, created_at) "
        f"SELECT '{queue}', CAST(n AS text), CAST(n AS text), '1', now() - interval '{age}' "
        f"FROM generate_series(1, {count}) AS n",
    )


def of(findings: Sequence[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def bad(findings: Sequence[Finding]) -> set[tuple[str, Grade]]:
    return {(each.check, each.grade) for each in findings if each.grade not in {Grade.OK, Grade.NOTE}}


async def test_where_all_is_well_nothing_is_found(admin: OutboxAdmin, owner: AsyncEngine) -> None:
    await put(owner)
    findings = await admin.examine()
    assert bad(findings) == set()
    assert {"server", "connections", "tables", "indexes", "queues", "plans", "listen"} <= {f.check for f in findings}


async def test_tables_and_indexes_that_differ(admin: OutboxAdmin, owner: AsyncEngine) -> None:
    await run(
        owner,
        "ALTER TABLE outbox_dlq DROP COLUMN outbox CASCADE",
        "DROP INDEX outbox_ready_idx",
        "CREATE INDEX outbox_ready_idx ON outbox (queue, shard, id)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = CAST('outbox_waiting_idx' AS regclass)",
    )
    findings = await admin.examine()
    assert "column 'outbox' is missing" in of(findings, "tables")[0].text
    invalid, other = of(findings, "indexes")
    assert "'outbox_waiting_idx' is not valid" in invalid.text
    assert "'outbox_ready_idx' is on (queue, shard, id), and not on" in other.text
    assert {finding.grade for finding in (invalid, other)} == {Grade.PROBLEM}


async def test_a_queue_that_stands_and_who_holds_its_shards(
    admin: OutboxAdmin, owner: AsyncEngine, engine: AsyncEngine
) -> None:
    await put(owner, age="10 min", count=3)
    [standing] = of(await admin.examine(), "queues")
    assert standing.text.startswith("'orders': 3 rows could be taken, the first one for 10 min")
    async with owner.connect() as holder:
        pid = await holder.scalar(text("SELECT pg_backend_pid()"))
        await holder.execute(
            text(
                "SELECT pg_advisory_lock(hashtextextended('outbox ' || CAST(CAST('outbox' AS regclass) AS oid) "
                "|| '/orders', n)) FROM generate_series(0, 15) AS n"
            )
        )
        [held] = of(await admin.examine(), "holders")
    assert f"pid {pid} of user" in held.text


async def test_leases_that_nobody_gives_back(admin: OutboxAdmin, owner: AsyncEngine) -> None:
    await put(owner)
    await run(owner, "UPDATE outbox SET acquired_token = 'gone', next_attempt_at = now() - interval '1 min'")
    [found] = of(await admin.examine(), "queues")
    assert "the leases of 1 row have run out" in found.text


async def test_a_session_that_others_wait_for(admin: OutboxAdmin, owner: AsyncEngine, engine: AsyncEngine) -> None:
    await put(owner)
    async with engine.connect() as blocker, owner.connect() as waiter:
        pid = await blocker.scalar(text("SELECT pg_backend_pid() FROM outbox FOR UPDATE"))
        waiting = asyncio.create_task(waiter.execute(text("DELETE FROM outbox")))
        async with asyncio.timeout(30):
            while not (found := [f for f in of(await admin.examine(), "blockers") if f.grade is Grade.PROBLEM]):
                pass
        await blocker.rollback()
        await waiting
    assert f"1 session waiting for pid {pid} of user" in found[0].text


async def test_a_table_that_somebody_has_locked(
    admin: OutboxAdmin, owner: AsyncEngine, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_outbox.admin.doctor.CHECK_SECONDS", 1.0)
    async with engine.connect() as migration, owner.connect() as consumer:
        pid = await migration.scalar(text("SELECT pg_backend_pid()"))
        await migration.execute(text("ALTER TABLE outbox ADD COLUMN note text"))
        waiting = asyncio.create_task(consumer.execute(text("SELECT FROM outbox")))
        async with asyncio.timeout(60):
            while not (found := [f for f in of(await admin.examine(), "blockers") if f.grade is Grade.PROBLEM]):
                pass
        findings = await admin.examine()
        await migration.rollback()
        await waiting
    assert f"waiting for pid {pid} of user" in found[0].text
    assert [each.grade for each in of(findings, "queues")] == [Grade.UNKNOWN]
    assert of(findings, "server")[0].grade is Grade.OK


async def test_a_snapshot_that_is_held(
    admin: OutboxAdmin, owner: AsyncEngine, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_outbox.admin.doctor.SNAPSHOT_SECONDS", 0.0)
    async with engine.connect() as reporter:
        await reporter.execution_options(isolation_level="REPEATABLE READ")
        pid = await reporter.scalar(text("SELECT pg_backend_pid()"))
        held = of(await admin.examine(), "snapshots")
    assert [(each.grade, f"'pid {pid}'" in each.text) for each in held] == [(Grade.WARNING, True)]


async def test_a_large_table_that_is_read_whole(admin: OutboxAdmin, owner: AsyncEngine) -> None:
    await put(owner, count=20_000)
    await run(owner, "ANALYZE outbox")
    assert of(await admin.examine(), "plans")[0].grade is Grade.OK
    await run(owner, "DROP INDEX outbox_ready_idx", "DROP INDEX outbox_waiting_idx")
    found = of(await admin.examine(), "plans")
    assert {finding.grade for finding in found} == {Grade.PROBLEM}
    assert any(finding.text.startswith("claim reads the whole table") for finding in found)


async def test_a_role_that_may_not_look(
    postgres_server: PostgresServer, database_url: str, owner: AsyncEngine, outbox_table: Table
) -> None:
    await put(owner)
    await run(owner, "CREATE ROLE blind_of_a_test LOGIN PASSWORD 'blind'")
    engine = create_async_engine(make_url(database_url).set(username="blind_of_a_test", password="blind"))
    try:
        findings = await make_admin(engine, outbox_table=outbox_table).examine()
    finally:
        await engine.dispose()
        await run(owner, "DROP OWNED BY blind_of_a_test", "DROP ROLE blind_of_a_test")
    unknown = {finding.check: finding.text for finding in findings if finding.grade is Grade.UNKNOWN}
    assert "permission denied for table outbox (SQLSTATE 42501)" in unknown["queues"]
    assert of(findings, "listen")[0].grade is Grade.OK, "one check that fails keeps no other from being made"


async def test_no_table_at_all(engine: AsyncEngine) -> None:
    tables: dict[str, Any] = {"outbox_table": make_outbox_table(MetaData(), "nothing")}
    findings = await make_admin(engine, **tables, dlq_table=make_dlq_table(MetaData(), "none")).examine()
    assert [finding.text for finding in of(findings, "tables")] == [
        "nothing: there is no such table",
        "none: there is no such table",
    ]


async def test_a_queue_that_no_process_consumes(
    engine: AsyncEngine, outbox_table: Table, admin: OutboxAdmin, owner: AsyncEngine
) -> None:
    await put(owner, "odrers")
    store = PostgresStore(engine, outbox_table)

    async def announce() -> None:
        while True:
            await store.announce(["orders"])
            await asyncio.sleep(0.05)

    announcing = asyncio.create_task(announce())
    try:
        found = of(await admin.examine(listen_seconds=3.0), "consumers")
    finally:
        announcing.cancel()
    assert [finding.text for finding in found] == [
        "1 queue announced within 3 s: orders",
        "'odrers': 1 row, and no process has announced that it consumes them",
    ]


async def test_the_broker_has_it_and_sees_what_it_published(
    engine: AsyncEngine, outbox_table: Table, dlq_table: Table
) -> None:
    broker = OutboxBroker(engine, outbox_table=outbox_table, dlq_table=dlq_table, logger=None)
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish({"n": 1}, queue="orders", session=session)
    [figures] = await broker.admin.queues()
    assert (figures.queue, figures.backlog.rows) == ("orders", 1)
    [seen] = await broker.admin.seen("orders")
    assert seen.row.payload == b'{"n":1}'
    assert await broker.admin.differences() == {}
