"""A row that SQL has written, and that no handler can be given, is a dead letter, and nobody else's trouble."""

import logging

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

from .conftest import MakeBroker
from .observing import Inbox, LogLines, Table, eventually

DEEP = "[" * 5000 + "]" * 5000
DIGITS = '{"n": 1' + "0" * 5000 + "}"
HEADERS = {DEEP: "RecursionError", DIGITS: "4300", '{"retries": 3}': "'retries' is a number", "[]": "an array"}


@pytest.mark.parametrize("headers", HEADERS, ids=["deep", "digits", "number", "array"])
async def test_messages_of_all_queues_are_handled_beside_it(
    make_broker: MakeBroker,
    session: AsyncSession,
    table: Table,
    inbox: Inbox,
    log: LogLines,
    dlq_table: SqlTable,
    headers: str,
) -> None:
    broker = make_broker(dlq_table=dlq_table, logger=log)

    @broker.subscriber(["orders", "bills"])
    async def handle(body: int) -> None:
        inbox.add(body)

    # The table may be of before there were checks.
    await table.query("ALTER TABLE outbox DROP CONSTRAINT outbox_headers_check")
    await table.query(
        "INSERT INTO outbox (queue, idempotency_key, payload, headers) "
        "VALUES ('orders', 'bad', '0', CAST(:headers AS jsonb))",
        headers=headers,
    )
    await broker.publish_batch(*range(1, 50), queue="orders", session=session)
    await broker.publish_batch(*range(50, 100), queue="bills", session=session)
    await session.commit()
    await broker.start()
    await inbox.wait_for(99)
    await eventually(table.is_empty)
    assert sorted(inbox.bodies) == list(range(1, 100))
    [letter] = await broker.dead_letters.list()
    assert (letter.reason, letter.row.idempotency_key, letter.row.attempts_count) == ("invalid", "bad", 1)
    assert letter.exception == letter.row.problem
    assert HEADERS[headers] in str(letter.exception)
    assert log.at_least(logging.WARNING) == [f"row {letter.row.id} goes to the dead letters: invalid"]
