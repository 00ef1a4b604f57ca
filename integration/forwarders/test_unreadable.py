"""A row that SQL has written, and that cannot be sent, is a dead letter; its destination does not count as down."""

import pytest
from sqlalchemy import Table as SqlTable

from faststream_outbox import Forward, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.base import Box
from integration.destinations.kinds import SERVERS

from .carrying import Publishing
from .conftest import MakeBroker

BAD = {
    "deep": '{"a": ' + "[" * 5000 + "]" * 5000 + "}",
    "digits": '{"a": 1' + "0" * 5000 + "}",
    "retries": '{"retries": 3}',
}


@pytest.mark.parametrize("has_transform", [False, True])
@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_other_rows_of_its_key_and_of_others_are_sent(
    *, box: Box, make_broker: MakeBroker, dlq_table: SqlTable, publishing: Publishing, table: Table, has_transform: bool
) -> None:
    for name, headers in BAD.items():
        await table.query(
            "INSERT INTO outbox (queue, key, idempotency_key, payload, headers) "
            "VALUES ('orders', 'k', :name, 'body', CAST(:headers AS jsonb))",
            name=name,
            headers=headers,
        )
    ids = await publishing.many([Outgoing(b"body", key="k"), Outgoing(b"body")] * 10)
    broker = make_broker(dlq_table=dlq_table)
    transform = (lambda _: Forward(headers={"a": "b"})) if has_transform else None
    forwarder = broker.forwarder("orders", to=box.publisher(), transform=transform)
    await broker.start()
    assert sorted(message.row_id for message in await box.received(len(ids))) == ids
    await eventually(table.is_empty)
    status = await forwarder.status()
    assert (status.sent, status.dead, status.refused, status.last_error) == (len(ids), len(BAD), 0, None)
    letters = {letter.row.idempotency_key: letter for letter in await broker.dead_letters.list()}
    assert letters.keys() == BAD.keys()
    assert {letter.reason for letter in letters.values()} == {"invalid"}
    assert "the value of 'retries' is a number, not a text" in str(letters["retries"].exception)
