"""A rescue that takes long, as after hours of an open snapshot, keeps neither leases nor outcomes waiting."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox._store.postgres import upkeep
from faststream_outbox._store.postgres.driver import DriverStatement
from faststream_outbox._values.outcome import DELIVERED
from tests.store.suite import ME, claim, draft, ids, put, settle

from .subject import PostgresSubject

NOBODY: frozenset[str] = frozenset()

# Says on which connection it has run, after it was waiting for a lock.
WAITING = DriverStatement(
    text("SELECT 'absent', CAST(pg_backend_pid() AS text) FROM (SELECT pg_advisory_xact_lock(42) OFFSET 0) AS waited")
)
LOCK = text("SELECT pg_advisory_xact_lock(42)")
BACKEND = DriverStatement(text("SELECT CAST(pg_backend_pid() AS text)"))


@pytest.fixture
async def subject(
    engine: AsyncEngine, outbox_table: Table, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresSubject]:
    monkeypatch.setattr(upkeep, "PATIENCE_SECONDS", 0.2)
    subject = PostgresSubject(engine, outbox_table, None)
    subject.store.reserve()
    monkeypatch.setattr(subject.store._statements, "rescue", WAITING)
    yield subject
    await subject.store.let_go()


@pytest.fixture
async def stranger(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        await connection.execute(LOCK)
        yield connection


async def rescue(subject: PostgresSubject) -> str:
    """Return the backend that has looked."""
    found = await subject.store.rescue(token=ME, suspects=NOBODY)
    [backend] = found.absent
    return backend


async def backend_of_upkeep(subject: PostgresSubject) -> str:
    [(backend,)] = await subject.store._upkeep.fetch(BACKEND, {})
    return str(backend)


async def test_renewals_and_outcomes_do_not_wait_for_it(subject: PostgresSubject, stranger: AsyncConnection) -> None:
    await put(subject, draft(), draft())
    rows = await claim(subject)
    rescued = asyncio.create_task(rescue(subject))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await subject.store.renew(rows, lease_seconds=60, token=ME) == {*ids(rows)}
        await settle(subject, rows, DELIVERED)
    assert await subject.rows() == {}
    assert not rescued.done()
    await stranger.rollback()
    assert await rescued != await backend_of_upkeep(subject)


async def test_the_next_one_is_out_of_the_way_from_the_start_until_one_is_quick_again(
    subject: PostgresSubject, stranger: AsyncConnection
) -> None:
    slow = asyncio.create_task(rescue(subject))
    # Longer than patience on either connection.
    await asyncio.sleep(3 * upkeep.PATIENCE_SECONDS)
    await stranger.rollback()
    await slow
    own = await backend_of_upkeep(subject)
    assert await rescue(subject) != own
    assert await rescue(subject) == own


async def test_after_a_failure_on_the_pool_the_next_one_is_not_cut_off_on_its_own_connection(
    subject: PostgresSubject, stranger: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers may hold the whole pool for hours."""

    async def fail(*_: object) -> None:
        msg = "no connection is left in the pool"
        raise ConnectionError(msg)

    monkeypatch.setattr(subject.store._runner, "fetch", fail)
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionError):
            await rescue(subject)
        slow = asyncio.create_task(rescue(subject))
        await asyncio.sleep(3 * upkeep.PATIENCE_SECONDS)
        await stranger.rollback()
        assert await slow == await backend_of_upkeep(subject)
        # It has succeeded: patience is short again.
        await stranger.execute(LOCK)
        with pytest.raises(ConnectionError):
            await rescue(subject)


async def test_a_limit_that_ends_the_wait_for_the_pool_is_a_failure_too(
    subject: PostgresSubject, stranger: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()

    async def wait(*_: object) -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(subject.store._runner, "fetch", wait)
    async with asyncio.timeout(10):
        given_up = asyncio.create_task(rescue(subject))
        await waits.wait()
        given_up.cancel()
        await asyncio.wait([given_up])
        slow = asyncio.create_task(rescue(subject))
        await asyncio.sleep(3 * upkeep.PATIENCE_SECONDS)
        await stranger.rollback()
        assert await slow == await backend_of_upkeep(subject)
