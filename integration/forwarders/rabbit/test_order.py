"""G4: the order of each key, and that nothing else has to wait."""

import asyncio
import random

from faststream.rabbit import RabbitBroker
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import ConstantRetry, OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.queues import Mailbox
from integration.servers.rabbitmq import RabbitServer

from .carrying import as_records, check_complete, check_order, row_id


async def test_keys_keep_their_order_through_two_brokers_while_rows_are_published(
    make_broker: MakeBroker, rabbit_server: RabbitServer, mailbox: Mailbox, publishing: Publishing, table: Table
) -> None:
    draw = random.Random(4)
    ids: list[int] = []
    for _ in range(2):
        broker = make_broker()
        to = RabbitBroker(rabbit_server.url, logger=None).publisher(mailbox.name)
        broker.forwarder(["orders", "refunds"], to=to, lanes=2, batch_size=50)
        await broker.start()
    for number in range(40):
        messages = [Outgoing(b"%d" % number, key=f"key-{draw.randrange(40)}") for _ in range(50)]
        # One queue only for each key: between queues there is no order.
        for queue, parity in (("orders", 0), ("refunds", 1)):
            ids += await publishing.many((m for m in messages if int(m.key[4:]) % 2 == parity), queue=queue)
    await eventually(table.is_empty, within=20)
    messages = await mailbox.messages(len(ids))
    assert len(messages) == len(ids)
    check_complete(as_records(messages), ids)


async def test_a_key_with_500_rows_keeps_its_order_and_holds_up_no_other(
    make_broker: MakeBroker, rabbit: RabbitBroker, mailbox: Mailbox, publishing: Publishing, table: Table
) -> None:
    ids = await publishing.many(Outgoing(b"h" * 1000, key="hot") for _ in range(500))
    ids += await publishing.many(Outgoing(b"c", key=f"cold-{number}") for number in range(50))
    broker = make_broker()
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name), batch_size=100)
    await broker.start()
    messages = await mailbox.messages(len(ids), timeout=30)
    check_complete(as_records(messages), ids)
    position = {row_id(record): record.offset for record in as_records(messages)}
    assert min(position[row] for row in ids[500:]) < position[ids[499]]


async def test_a_refused_row_holds_back_its_own_key_only(
    broker: OutboxBroker, rabbit_server: RabbitServer, rabbit: RabbitBroker, publishing: Publishing, table: Table
) -> None:
    """A queue that rejects when it is full takes some rows of a hand-over and not others."""
    limits = {"x_max_length": 5, "x_overflow": "reject-publish"}
    async with Mailbox.open(rabbit_server.url, rabbit_server.new_name(), **limits) as mailbox:
        broker.forwarder(
            "orders",
            to=rabbit.publisher(mailbox.name),
            lanes=1,
            retry_strategy=ConstantRetry(delay_seconds=0.2, max_attempts=1000),
        )
        ids = await publishing.many(Outgoing(b"", key=f"key-{n % 8}") for n in range(64))
        await broker.start()
        messages = []
        while len(messages) < len(ids):
            left = len(ids) - len(messages)
            await eventually(lambda left=left: _someone_was_refused(table, left))
            messages = await mailbox.messages(len(messages) + 1)
        await eventually(table.is_empty)
        assert len(messages) == len(ids)
        check_complete(as_records(messages), ids)


async def _someone_was_refused(table: Table, left: int) -> bool:
    return await table.count("attempts_count > 0") > 0 or await table.count() < left


async def test_nothing_passes_a_poisoned_row_of_its_key_before_it_is_dead(
    broker: OutboxBroker, rabbit: RabbitBroker, mailbox: Mailbox, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    messages = [Outgoing(b"", key=f"key-{number % 7}") for number in range(100)]
    poisoned = (13, 50, 51, 52, 99)
    for number in poisoned:
        # RabbitMQ wants a list there, and closes the channel over a text.
        messages[number] = Outgoing(b"", key=messages[number].key, headers={"CC": "another"})
    ids = await publishing.many(messages)
    await broker.start()
    await eventually(lambda: _all_failed(table), within=15)
    assert {row.id for row in await table.rows()} == {ids[number] for number in poisoned}
    records = as_records(await mailbox.messages(95))
    check_complete(records, {row for number, row in enumerate(ids) if number not in poisoned})


async def _all_failed(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0


async def test_brokers_that_come_and_go_keep_order_and_repeat_nothing(
    *,
    database_url: str,
    outbox_table: SqlTable,
    rabbit_server: RabbitServer,
    mailbox: Mailbox,
    publishing: Publishing,
    table: Table,
) -> None:
    engine = create_async_engine(database_url)
    ids: list[int] = []

    async def publish() -> None:
        for number in range(40):
            ids.extend(await publishing.many(Outgoing(b"", key=f"key-{(number + k) % 11}") for k in range(25)))

    async def come_and_go() -> None:
        for _ in range(3):
            broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
            to = RabbitBroker(rabbit_server.url, logger=None).publisher(mailbox.name)
            broker.forwarder("orders", to=to, batch_size=20)
            await broker.start()
            seen = len(ids)
            await eventually(lambda seen=seen: len(ids) >= min(seen + 100, 1000), within=20)
            await broker.stop()

    await asyncio.gather(publish(), come_and_go(), come_and_go())
    last = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    last.forwarder("orders", to=RabbitBroker(rabbit_server.url, logger=None).publisher(mailbox.name))
    await last.start()
    await eventually(table.is_empty, within=20)
    await last.stop()
    await engine.dispose()
    records = as_records(await mailbox.messages(len(ids)))
    assert len(records) == len(ids), "a clean stop repeats nothing"
    check_order(records)
    assert sorted(map(row_id, records)) == sorted(ids)
