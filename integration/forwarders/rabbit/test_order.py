"""G4: a queue that is full, and a message over which RabbitMQ closes the channel."""

import pytest
from faststream.rabbit import RabbitBroker

from faststream_outbox import ConstantRetry, OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.destinations.received import check_complete
from integration.forwarders.carrying import Publishing
from integration.servers.rabbitmq import MAX_MESSAGE_BYTES, RabbitServer


@pytest.mark.parametrize("count_nacks", [True, False])
async def test_a_row_that_a_full_queue_rejects_holds_back_its_own_key(
    *,
    count_nacks: bool,
    broker: OutboxBroker,
    rabbit_server: RabbitServer,
    rabbit: RabbitBroker,
    publishing: Publishing,
    table: Table,
) -> None:
    """A queue that rejects when it is full takes some rows of a hand-over and not others."""
    limits = {"x_max_length": 5, "x_overflow": "reject-publish"}
    async with QueueBox.declared(rabbit_server, rabbit_server.new_name(), **limits) as mailbox:
        broker.forwarder(
            "orders",
            to=rabbit.publisher(mailbox.name),
            lanes=1,
            count_nacks=count_nacks,
            retry_strategy=ConstantRetry(delay_seconds=0.2, max_attempts=1000),
        )
        ids = await publishing.many(Outgoing(b"", key=f"key-{n % 8}") for n in range(64))
        await broker.start()
        messages = []
        while len(messages) < len(ids):
            left = len(ids) - len(messages)
            await eventually(lambda left=left: _someone_was_refused(table, left))
            messages = await mailbox.received(len(messages) + 1)
        await eventually(table.is_empty)
        assert len(messages) == len(ids)
        check_complete(messages, ids)


async def _someone_was_refused(table: Table, left: int) -> bool:
    return await table.count("attempts_count > 0") > 0 or await table.count() < left


async def test_nothing_passes_a_poisoned_row_of_its_key_before_it_is_dead(
    broker: OutboxBroker, rabbit: RabbitBroker, mailbox: QueueBox, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    messages = [Outgoing(b"", key=f"key-{number % 7}") for number in range(100)]
    poisoned = (13, 50, 51, 52, 99)
    for number in poisoned:
        # RabbitMQ closes the channel over it.
        messages[number] = Outgoing(b"x" * (MAX_MESSAGE_BYTES + 1), key=messages[number].key)
    ids = await publishing.many(messages)
    await broker.start()
    await eventually(lambda: _all_failed(table), within=15)
    assert {row.id for row in await table.rows()} == {ids[number] for number in poisoned}
    records = await mailbox.received(95)
    check_complete(records, {row for number, row in enumerate(ids) if number not in poisoned})


async def _all_failed(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0
