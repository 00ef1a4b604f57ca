"""G5: a destination that is down is no failure of any row."""

import asyncio
import logging

import pytest
from faststream.rabbit import RabbitBroker

from faststream_outbox import Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.destinations.received import check_complete, check_order, without_repeats
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing, nothing_is_counted, restart_while_rows_flow
from integration.forwarders.conftest import MakeBroker
from integration.servers.rabbitmq import OwnRabbit


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_while_rows_flow(
    *,
    killed: bool,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    embedded: OwnRabbit,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    log: LogLines,
    aiormq_log: pytest.LogCaptureFixture,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name), batch_size=50)
    handled: list[int] = []

    @broker.subscriber("local")
    async def handle(body: int) -> None:
        handled.append(body)

    async def a_local_message_is_handled() -> None:
        await publishing.one(1, queue="local")
        await eventually(lambda: handled)

    embedded.write_down()
    await broker.start()
    ids = await restart_while_rows_flow(
        embedded, publishing, table, log, killed=killed, meanwhile=a_local_message_is_handled
    )
    records = await mailbox.received(len(ids))
    assert len(records) - len(ids) <= 100, "at most what was in flight is repeated"
    check_complete(records, ids)
    check_order(without_repeats(records))
    assert len(log.at_least(logging.WARNING)) <= 2, log.at_least(logging.WARNING)
    await eventually(lambda: log.containing("works again"))
    assert len(log.containing("works again")) == 1
    assert len(aiormq_log.records) <= 4, aiormq_log.messages


async def test_a_memory_alarm_is_an_outage_and_lets_nothing_through_later(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    embedded: OwnRabbit,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    log: LogLines,
    aiormq_log: pytest.LogCaptureFixture,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await broker.start()
    await publishing.one(b"it works")
    await eventually(table.is_empty)
    with embedded.memory_alarm():
        ids = await publishing.many(Outgoing(b"x", key=f"key-{n % 5}") for n in range(50))
        await eventually(lambda: log.containing("blocks publishers"), within=10)
        # Long enough for some more attempts.
        await asyncio.sleep(3.0)
        await eventually(lambda: _are_free(table, 50))
        await nothing_is_counted(table)
        # A forwarder that starts now finds out as well.
        second = make_broker(logger=log)
        second.forwarder("orders", to=rabbit.publisher(mailbox.name))
        await second.start()
        await asyncio.sleep(1.0)
        assert len(log.at_least(logging.WARNING)) <= 2, log.at_least(logging.WARNING)
        assert len(aiormq_log.records) <= 12, aiormq_log.messages
    await eventually(table.is_empty, within=10)
    messages = [message for message in await mailbox.received(51) if message.body != b"it works"]
    assert len(messages) == len(ids), "what was given up was not sent"
    check_complete(messages, ids)


async def _are_free(table: Table, count: int) -> bool:
    return len(await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")) == count


async def test_connections_that_break_again_and_again_poison_nothing(
    *,
    make_broker: MakeBroker,
    proxied_rabbit: RabbitBroker,
    rabbit_proxy: TcpProxy,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=proxied_rabbit.publisher(mailbox.name), batch_size=50)
    await broker.start()
    ids: list[int] = []
    for _ in range(4):
        # Then all get through, so that none can meet a third break.
        for _ in range(2):
            for _ in range(4):
                ids += await publishing.many(Outgoing(b"", key=f"key-{n % 20}") for n in range(100))
            rabbit_proxy.reset()
        await eventually(lambda: _nothing_waits(table), within=20)
    assert not await table.rows()
    check_complete(await mailbox.received(len(ids)), ids)


async def _nothing_waits(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0
