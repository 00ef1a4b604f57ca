"""What the declaration of the outbox table asks of PostgreSQL, as rows in it show."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox.schema import SHARDS
from tests.store.suite import draft, put

from .subject import PostgresSubject

RUN = 512
"""Rows without a key go to one shard in runs of so many ids (docs/inside/plans.md)."""


async def test_rows_without_a_key_go_to_a_shard_in_runs(subject: PostgresSubject) -> None:
    written = await put(subject, *[draft("q")] * (RUN + 10))
    rows = await subject.rows()
    shards = [rows[row_id].shard for row_id in written]
    # The runs begin wherever the first id stands in its own.
    assert shards == [row_id // RUN % SHARDS for row_id in written]
    assert len(set(shards)) == 2


async def test_a_row_is_as_old_as_its_insert_and_not_as_its_transaction(
    subject: PostgresSubject, engine: AsyncEngine
) -> None:
    async with subject.transaction() as session:
        began = (
            await session.execute(text("SELECT now() + interval '50 milliseconds' FROM pg_sleep(0.1)"))
        ).scalar_one()
        await subject.writer.insert(session, draft("q"))
    [stored] = (await subject.rows()).values()
    assert stored.row.created_at > began


async def test_the_row_that_holds_its_key_is_found_by_an_index(subject: PostgresSubject, engine: AsyncEngine) -> None:
    look = """SELECT id FROM outbox WHERE queue = 'q' AND shard = 3 AND key = 'k'
        AND last_attempt_at IS NOT NULL AND next_attempt_at IS NOT NULL AND id < 1000"""
    async with engine.begin() as connection:
        # What the planner would do with a full table, whatever is in this one.
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = (await connection.execute(text(f"EXPLAIN {look}"))).scalars().all()
    assert "outbox_holding_idx" in "\n".join(plan)


async def test_dead_letters_that_are_parked_are_found_by_an_index(
    subject: PostgresSubject, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        look = "SELECT id FROM outbox WHERE queue = 'q' AND failed_at IS NOT NULL AND failed_at < now()"
        plan = (await connection.execute(text(f"EXPLAIN {look}"))).scalars().all()
    assert "outbox_parked_idx" in "\n".join(plan)


@pytest.mark.parametrize("column", ["key", "idempotency_key"])
async def test_names_are_compared_byte_by_byte(subject: PostgresSubject, engine: AsyncEngine, column: str) -> None:
    look = """SELECT collname FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation
        WHERE attrelid = 'outbox'::regclass AND attname = :column"""
    async with engine.connect() as connection:
        assert (await connection.execute(text(look), {"column": column})).scalar_one() == "C"


async def test_only_messages_that_ask_for_it_are_kept_apart_by_their_idempotency_keys(
    subject: PostgresSubject, engine: AsyncEngine
) -> None:
    """A copy that comes back from a dead letter has the key of a row that may live again."""
    insert = text("INSERT INTO outbox (queue, idempotency_key, payload, deduplicate) VALUES ('q', 'same', '', :asked)")
    async with engine.begin() as connection:
        for asked in (False, False, True):
            await connection.execute(insert, {"asked": asked})
    assert len(await subject.rows()) == 3
