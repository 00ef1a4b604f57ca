"""basic.nack: RabbitMQ speaks of a queue, and not of the message."""

import logging
from collections import Counter
from collections.abc import AsyncIterator

import aio_pika
import pytest
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange

from faststream_outbox import ConstantRetry, Forward, OutboxForwarder, OutboxMessage, Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.destinations.received import check_complete
from integration.forwarders.carrying import Publishing, all_failed, nothing_is_counted
from integration.forwarders.conftest import MakeBroker
from integration.servers.rabbitmq import RabbitServer

REJECTS = {"x_overflow": "reject-publish"}


@pytest.fixture
async def fanout(rabbit_server: RabbitServer, nothing_is_left_behind: None) -> AsyncIterator[str]:
    """The name of an exchange that gives each message to all queues that are bound to it."""
    name = rabbit_server.new_name()
    async with await aio_pika.connect(rabbit_server.url) as connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(name, "fanout", durable=True)
        yield name
        await exchange.delete()


async def _is_down(forwarder: OutboxForwarder, name: str) -> bool:
    return [part.name for part in (await forwarder.status()).parts_down] == [name]


async def _length(url: str, queue: str) -> int:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def test_a_full_queue_is_an_outage_of_its_routing_key_until_it_is_emptied(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    publishing: Publishing,
    table: Table,
    mailbox: QueueBox,
    log: LogLines,
) -> None:
    def elsewhere(message: OutboxMessage) -> Forward:
        return Forward(to=mailbox.name if message.headers.get("goes") == "elsewhere" else None)

    broker = make_broker(logger=log)
    async with QueueBox.declared(rabbit_server, rabbit_server.new_name(), x_max_length=5, **REJECTS) as full:
        # A row that were refused would wait for longer than the test.
        retry = ConstantRetry(delay_seconds=600)
        to = rabbit.publisher(full.name)
        forwarder = broker.forwarder("orders", to=to, transform=elsewhere, retry_strategy=retry)
        ids = await publishing.many(Outgoing(b"", key=f"key-{n % 8}") for n in range(60))
        await broker.start()
        [line] = await eventually(lambda: log.at_least(logging.WARNING), within=10)
        assert f"basic.nack for {full.name!r}: a queue is full and rejects" in line
        assert await _is_down(forwarder, full.name)
        other = {"goes": "elsewhere"}
        others = await publishing.many(Outgoing(b"", key=f"key-{n}", headers=other) for n in range(8))
        more = await publishing.many(Outgoing(b"", key=f"other-{n}", headers=other) for n in range(30))
        arrived = await mailbox.received(30)
        assert {record.row_id for record in arrived} == set(more), "the rest of each key waits, and no other key"
        status = await forwarder.status()
        assert status.state == "flowing", "the destination works"
        assert "basic.nack" in (status.last_error or "")
        assert 0 < status.parts_down[0].tries
        await nothing_is_counted(table)
        messages = []
        while len(messages) < len(ids):
            messages = await full.received(len(messages) + 1, within=30)
        check_complete(messages, ids)
        check_complete(await mailbox.received(38), [*others, *more])
        await eventually(table.is_empty)
        await eventually(lambda: log.containing("works again"))
        assert len(log.at_least(logging.WARNING)) == 1
        assert not (await forwarder.status()).parts_down


async def test_while_one_of_several_queues_is_full_the_others_get_few_copies(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    fanout: str,
    publishing: Publishing,
    table: Table,
) -> None:
    broker, url = make_broker(), rabbit_server.url
    async with (
        QueueBox.declared(rabbit_server, f"{fanout}-good", exchange=fanout) as good,
        QueueBox.declared(rabbit_server, f"{fanout}-full", exchange=fanout, x_max_length=1, **REJECTS) as full,
    ):
        exchange = RabbitExchange(fanout, type=ExchangeType.FANOUT, durable=True)
        forwarder = broker.forwarder("orders", to=rabbit.publisher(exchange=exchange), lanes=1, batch_size=50)
        ids = await publishing.many([Outgoing(b"", key="k")] * 6)
        await broker.start()
        await eventually(lambda: _has_tried(forwarder, 6), within=20)
        [part] = (await forwarder.status()).parts_down
        copies = await _length(url, good.name)
        assert part.tries <= copies <= part.tries + 2, "one for each try, and one for the message that was taken"
        await nothing_is_counted(table)
        taken = 0
        while taken < len(ids):
            # It is full again at once, and has room for one more when that one is read.
            taken = len(await full.messages(taken + 1, timeout=60))
        await eventually(table.is_empty)
        check_complete(await full.received(6), ids)
        check_complete(await good.received(6), ids)


async def _has_tried(forwarder: OutboxForwarder, times: int) -> bool:
    return any(part.tries >= times for part in (await forwarder.status()).parts_down)


async def test_where_nacks_count_a_message_ends_as_a_dead_letter(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    fanout: str,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker()
    async with (
        QueueBox.declared(rabbit_server, f"{fanout}-good", exchange=fanout) as good,
        QueueBox.declared(rabbit_server, f"{fanout}-full", exchange=fanout, x_max_length=1, **REJECTS) as full,
    ):
        exchange = RabbitExchange(fanout, type=ExchangeType.FANOUT, durable=True)
        forwarder = broker.forwarder(
            "orders",
            to=rabbit.publisher(exchange=exchange),
            retry_strategy=ConstantRetry(delay_seconds=0.05, max_attempts=3),
            count_nacks=True,
        )
        ids = await publishing.many([Outgoing(b"", key="k")] * 4)
        await broker.start()
        await eventually(lambda: all_failed(table), within=10)
        dead = await table.rows()
        assert [row.id for row in dead] == ids[1:]
        assert {(row.failure_reason, row.attempts_count) for row in dead} == {("retries_exhausted", 3)}
        assert all("Basic.Nack" in row.last_exception for row in dead)
        copies = Counter(record.row_id for record in await good.received(10))
        assert copies == {ids[0]: 1, ids[1]: 3, ids[2]: 3, ids[3]: 3}
        assert len(await full.messages(1)) == 1
        assert not (await forwarder.status()).parts_down
