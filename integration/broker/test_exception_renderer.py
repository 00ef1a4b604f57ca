"""`exception_renderer`: in no column of the tables stands what the application wants to keep out of them."""

import logging
from typing import Any

import pytest
from faststream import AckPolicy
from pydantic import BaseModel
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import ConstantRetry, NoRetry

from .conftest import MakeBroker
from .observing import LogLines, Table, eventually

SECRET = "alice@example.com"


class Order(BaseModel):
    number: int


def kind_of(error: BaseException) -> str:
    return f"kept: {type(error).__name__}"


def broken(error: BaseException) -> str:
    raise ValueError(SECRET)


@pytest.mark.parametrize(("render", "prefix"), [(kind_of, "kept: "), (broken, "")], ids=["works", "is broken"])
@pytest.mark.parametrize("has_dlq", [True, False], ids=["moved", "parked"])
async def test_what_is_stored_of_exceptions(
    *, make_broker: MakeBroker, dlq_table: SqlTable, session: AsyncSession, table: Table, log: LogLines,
    render: Any, prefix: str, has_dlq: bool,
) -> None:  # fmt: skip
    broker = make_broker(exception_renderer=render, dlq_table=dlq_table if has_dlq else None, logger=log)

    @broker.subscriber("retried", retry_strategy=ConstantRetry(delay_seconds=3600))
    async def retry(body: str) -> None:
        raise LookupError(body)

    @broker.subscriber("failed", retry_strategy=NoRetry())
    async def fail(body: str) -> None:
        raise LookupError(body)

    @broker.subscriber("rejected", ack_policy=AckPolicy.REJECT_ON_ERROR)
    async def reject(body: str) -> None:
        raise LookupError(body)

    @broker.subscriber("misfit")
    async def never(body: Order) -> None: ...

    for queue in ("retried", "failed", "rejected"):
        await broker.publish(SECRET, queue=queue, session=session)
    await broker.publish({"number": SECRET}, queue="misfit", session=session)
    await session.commit()
    await broker.start()
    letters = "outbox_dlq" if has_dlq else "outbox"
    await eventually(lambda: _count(table, letters))
    rows = [*await table.rows(letters), *await table.rows()]
    assert {row.queue: row.last_exception for row in rows} == {
        "retried": f"{prefix}LookupError",
        "failed": f"{prefix}LookupError",
        "rejected": f"{prefix}LookupError",
        "misfit": f"{prefix}ValidationError",
    }
    said = [line for line in log.at_least(logging.WARNING) if "exception_renderer" in line]
    assert len(said) == (2 if render is broken else 0)
    assert all(SECRET not in line for line in said)


async def _count(table: Table, letters: str) -> bool:
    tried = await table.count("last_exception IS NOT NULL AND failed_at IS NULL")
    return tried == 1 and await table.count("failed_at IS NOT NULL", letters) == 3


async def test_what_the_database_says_of_a_dead_letter_is_rendered_too(
    make_broker: MakeBroker, dlq_table: SqlTable, session: AsyncSession, table: Table
) -> None:
    """PostgreSQL shows the row that it refuses."""
    await table.query(f"ALTER TABLE outbox_dlq ADD CONSTRAINT own CHECK (key <> '{SECRET}')")
    broker = make_broker(exception_renderer=kind_of, dlq_table=dlq_table)

    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def fail(body: str) -> None:
        raise LookupError(body)

    await broker.publish("1", queue="orders", key=SECRET, session=session)
    await session.commit()
    await broker.start()
    await eventually(lambda: table.count("failed_at IS NOT NULL"))
    [row] = await table.rows()
    assert row.last_exception == "kept: LookupError; not moved to the dead-letter table: kept: CheckViolationError"
