"""The statements of docs/migrations.md, on a table of before."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import OutboxBroker, SchemaError
from faststream_outbox.schema import CHECKS

from .observing import Inbox, Table

PAGE = Path(__file__).parents[2] / "docs" / "migrations.md"
BLOCK = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITE = "INSERT INTO outbox (queue, key, idempotency_key, payload, headers) VALUES (:q, :k, :i, '1', CAST(:h AS jsonb))"
BAD = [
    {"q": "orders", "k": None, "i": "a", "h": "[]"},
    {"q": "orders", "k": None, "i": "b", "h": '"text"'},
    {"q": "orders", "k": "x" * 1025, "i": "c", "h": "{}"},
    {"q": "orders", "k": None, "i": "d" * 256, "h": "{}"},
    {"q": "q" * 256, "k": None, "i": "e", "h": "{}"},
]


def statements() -> list[list[str]]:
    """Those of each block of the page."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    return [[part for part in block.split(";\n") if part.strip()] for block in blocks]


async def run(engine: AsyncEngine, block: list[str]) -> None:
    async with engine.begin() as connection:
        for statement in block:
            await connection.exec_driver_sql(statement)


async def test_a_table_of_before_gets_its_checks_and_loses_no_good_row(
    *, broker: OutboxBroker, engine: AsyncEngine, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    for name in CHECKS:
        await table.query(f"ALTER TABLE outbox DROP CONSTRAINT outbox_{name}_check")
    for row in BAD:
        await table.query(WRITE, **row)
    await broker.publish(2, queue="orders", key="k", session=session)
    await broker.publish(3, queue="orders", session=session)
    await session.commit()
    with pytest.raises(SchemaError, match=r"check 'outbox_headers_check' is missing \(docs/migrations.md\)"):
        await broker.validate_schema()
    set_aside, add, validate, texts = statements()
    await run(engine, set_aside)
    assert {row.idempotency_key for row in await table.rows("outbox_set_aside")} == {row["i"] for row in BAD}
    assert await table.count() == 2
    await run(engine, add)
    await run(engine, validate)
    await run(engine, texts)
    await broker.validate_schema()
    for row in [*BAD, {"q": "orders", "k": None, "i": "f", "h": '{"a": ["b"]}'}]:
        with pytest.raises(IntegrityError, match="_check"):
            await table.query(WRITE, **row)

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.start()
    assert sorted(await inbox.wait_for(2)) == [2, 3]


async def test_the_checks_of_the_page_are_those_of_the_declaration(engine: AsyncEngine) -> None:
    """As PostgreSQL writes them out."""
    found = text(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'outbox'::regclass AND contype = 'c'"
    )
    async with engine.connect() as connection:
        declared = set(map(tuple, (await connection.execute(found)).all()))
        assert len(declared) == len(CHECKS)
        for name in CHECKS:
            await connection.exec_driver_sql(f"ALTER TABLE outbox DROP CONSTRAINT outbox_{name}_check")
        for block in statements()[1:3]:
            for statement in block:
                await connection.exec_driver_sql(statement)
        assert set(map(tuple, (await connection.execute(found)).all())) == declared
