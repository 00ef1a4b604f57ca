"""G11, and each line of the table of failure classes, on the real server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange
from sqlalchemy import Table as SqlTable

from faststream_outbox import ConstantRetry, OutboxBroker, Outgoing
from faststream_outbox.forwarders.rabbit import destination, properties
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.rabbitmq import MAX_MESSAGE_BYTES, OwnRabbit, RabbitServer

LARGE = b"x" * (MAX_MESSAGE_BYTES + 1)


@pytest.fixture
async def channel(rabbit_server: RabbitServer, nothing_is_left_behind: None) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(rabbit_server.url) as connection, connection.channel() as channel:
        yield channel


async def _settled(table: Table, count: int, name: str = "outbox") -> Any:
    rows = await table.rows(name)
    return len(rows) == count and all(row.failed_at for row in rows) and rows


async def _nothing_is_counted(table: Table) -> None:
    assert await table.count("attempts_count > 0 OR failed_at IS NOT NULL") == 0


async def test_406_a_message_that_is_too_large_is_parked_and_its_neighbours_are_sent(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    embedded: OwnRabbit,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name), lanes=1)
    messages = [Outgoing(b"%d" % number, key="k" if number < 9 else None) for number in range(30)]
    messages[4] = Outgoing(LARGE, key="k")
    messages[20] = Outgoing(LARGE)
    ids = await publishing.many(messages)
    await broker.start()
    parked = await eventually(lambda: _settled(table, 2), within=10)
    assert [row.id for row in parked] == [ids[4], ids[20]]
    assert bytes(parked[0].payload) == LARGE
    assert {row.failure_reason for row in parked} == {"too_large"}
    assert all("larger than configured max size" in row.last_exception for row in parked)
    assert {row.attempts_count for row in parked} == {1}
    received = [record.row_id for record in await mailbox.received(28)]
    assert set(received) == set(ids) - {ids[4], ids[20]}
    assert not log.containing("retrying until it works"), "RabbitMQ was never down"


async def test_406_with_a_dead_letter_table_the_row_moves_there(
    *,
    make_broker: MakeBroker,
    dlq_table: SqlTable,
    rabbit: RabbitBroker,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Else RabbitMQ would not be asked.
    monkeypatch.setattr(properties, "SENDER_SELECTED", ())
    broker = make_broker(dlq_table=dlq_table)
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    poison = await publishing.one(b"poison", idempotency_key="poison", headers={"BCC": "a list it should be"})
    await publishing.one(b"fine")
    await broker.start()
    assert [message.body for message in await mailbox.messages(1)] == [b"fine"]
    await eventually(table.is_empty)
    [dead] = await table.rows("outbox_dlq")
    assert (dead.id, dead.idempotency_key, dead.failure_reason) == (poison, "poison", "invalid")
    assert "unacceptable_type_in_header" in dead.last_exception
    assert bytes(dead.payload) == b"poison"


async def test_headers_beyond_the_frame_limit_are_found_before_rabbitmq_closes_the_connection(
    *,
    broker: OutboxBroker,
    rabbit: RabbitBroker,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    aiormq_log: pytest.LogCaptureFixture,
) -> None:
    ids = await publishing.many([Outgoing(b"")] * 3)
    # `publish` has refused that; a row may come from elsewhere.
    await table.query(
        "UPDATE outbox SET headers = jsonb_build_object('x', repeat('x', 200000)) WHERE id = :id", id=ids[1]
    )
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await broker.start()
    [parked] = await eventually(lambda: _settled(table, 1))
    assert (parked.id, parked.failure_reason) == (ids[1], "too_large")
    assert "frame_max" in parked.last_exception
    assert len(await mailbox.messages(2)) == 2
    assert not aiormq_log.records


async def test_a_header_that_cannot_be_encoded_is_parked(
    broker: OutboxBroker, rabbit: RabbitBroker, mailbox: QueueBox, publishing: Publishing, table: Table
) -> None:
    await publishing.one(b"", headers={"content-type": "x" * 300})
    await publishing.one(b"fine")
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await broker.start()
    [parked] = await eventually(lambda: _settled(table, 1))
    assert parked.failure_reason == "invalid"
    assert "255 bytes" in parked.last_exception
    assert len(await mailbox.messages(1)) == 1


async def test_541_a_header_that_kills_the_connection_is_found_out(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    log: LogLines,
    monkeypatch: pytest.MonkeyPatch,
    aiormq_log: pytest.LogCaptureFixture,
) -> None:
    """Strings cannot do that as far as known, so one row gets a value that is known to."""
    wire_headers: Callable[..., dict[str, Any]] = destination.wire_headers

    def with_a_killer(row: Any) -> dict[str, Any]:
        return wire_headers(row) | ({"x": float("nan")} if row.idempotency_key == "killer" else {})

    monkeypatch.setattr(destination, "wire_headers", with_a_killer)
    # Else such a value is not sent.
    monkeypatch.setattr(properties, "math", SimpleNamespace(isfinite=lambda _: True))
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    ids = await publishing.many(
        Outgoing(b"", key=f"key-{n % 9}", idempotency_key="killer" if n == 44 else None) for n in range(100)
    )
    await broker.start()
    [parked] = await eventually(lambda: _settled(table, 1), within=20)
    assert (parked.idempotency_key, parked.failure_reason) == ("killer", "invalid")
    assert "INTERNAL_ERROR" in parked.last_exception
    assert parked.id == ids[44]
    received = {record.row_id for record in await mailbox.received(99)}
    assert received == set(ids) - {parked.id}
    # One error of aiormq's for each connection that broke, and no fourth.
    assert len([record for record in aiormq_log.records if record.levelno == logging.ERROR]) == 3
    assert len(log.at_least(logging.WARNING)) <= 3


async def test_312_an_unroutable_row_is_refused_and_tried_again(
    broker: OutboxBroker, rabbit: RabbitBroker, rabbit_server: RabbitServer, publishing: Publishing, table: Table
) -> None:
    name = rabbit_server.new_name()
    retry = ConstantRetry(delay_seconds=0.2, max_attempts=1000)
    broker.forwarder("orders", to=rabbit.publisher(name), retry_strategy=retry)
    await publishing.many(Outgoing(b"", key=f"key-{n % 2}") for n in range(6))
    await broker.start()
    await eventually(lambda: _count(table, "attempts_count > 1", 2))
    [row, *_] = await table.query("SELECT * FROM outbox WHERE attempts_count > 0 ORDER BY id")
    assert "NO_ROUTE" in row.last_exception
    assert await table.count("attempts_count > 0") == 2, "what stands behind them was not sent"
    async with QueueBox.declared(rabbit_server, name) as mailbox:
        assert len(await mailbox.messages(6)) == 6
        await eventually(table.is_empty)


async def _count(table: Table, where: str, count: int) -> bool:
    return await table.count(where) >= count


async def test_312_an_unroutable_row_is_dead_in_the_end(
    broker: OutboxBroker, rabbit: RabbitBroker, rabbit_server: RabbitServer, publishing: Publishing, table: Table
) -> None:
    retry = ConstantRetry(delay_seconds=0.05, max_attempts=3)
    broker.forwarder("orders", to=rabbit.publisher(rabbit_server.new_name()), retry_strategy=retry)
    await publishing.one(b"")
    await broker.start()
    [parked] = await eventually(lambda: _settled(table, 1))
    assert (parked.failure_reason, parked.attempts_count) == ("retries_exhausted", 3)
    assert "NO_ROUTE" in parked.last_exception


async def test_404_a_missing_exchange_is_an_outage(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    channel: AbstractChannel,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    name = rabbit_server.new_name()
    broker = make_broker(logger=log)
    exchange = RabbitExchange(name, declare=False, type=ExchangeType.FANOUT)
    broker.forwarder("orders", to=rabbit.publisher(exchange=exchange))
    await publishing.many([Outgoing(b"", key="k")] * 10)
    await broker.start()
    [line] = await eventually(lambda: log.at_least(logging.WARNING))
    assert "NOT_FOUND" in line
    await asyncio.sleep(0.5)
    await _nothing_is_counted(table)
    for round_ in (1, 2):
        # The second time it goes away while the forwarder is connected.
        await channel.declare_exchange(name, "fanout", durable=True)
        async with QueueBox.declared(rabbit_server, f"{name}-{round_}", exchange=name) as mailbox:
            await mailbox.messages(10)
            await eventually(table.is_empty)
            await channel.exchange_delete(name)
            await publishing.many([Outgoing(b"", key="k")] * 10)
            await eventually(lambda round_=round_: len(log.containing("NOT_FOUND")) > round_)
        await _nothing_is_counted(table)
    await eventually(lambda: len(log.containing("works again")) == 2)


async def test_406_an_exchange_of_another_kind_is_an_outage_that_says_so(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    channel: AbstractChannel,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    name = rabbit_server.new_name()
    await channel.declare_exchange(name, "topic", durable=True)
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=rabbit.publisher(exchange=RabbitExchange(name), routing_key="k"))
    await publishing.one(b"")
    await broker.start()
    [line] = await eventually(lambda: log.at_least(logging.WARNING))
    assert "inequivalent arg 'type'" in line
    await _nothing_is_counted(table)
    await broker.stop()
    await channel.exchange_delete(name)


async def test_403_a_user_who_may_not_write_is_an_outage(
    *,
    make_broker: MakeBroker,
    embedded: OwnRabbit,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    def permit(write: str) -> None:
        embedded.evaluate(f'{users}:set_permissions({reader}, <<"/">>, <<".*">>, <<"{write}">>, <<>>, {tests})')

    users, reader, tests = "rabbit_auth_backend_internal", '<<"reader">>', '<<"tests">>'
    embedded.evaluate(f'{users}:add_user({reader}, <<"secret">>, {tests})')
    permit("^$")
    broker = make_broker(logger=log)
    rabbit = RabbitBroker(embedded.url.replace("guest:guest", "reader:secret"), logger=None)
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await publishing.many([Outgoing(b"")] * 20)
    await broker.start()
    await eventually(lambda: log.containing("ACCESS_REFUSED"))
    await asyncio.sleep(0.5)
    await _nothing_is_counted(table)
    assert len(log.at_least(logging.WARNING)) == 1
    permit(".*")
    assert len(await mailbox.messages(20)) == 20


async def test_a_login_that_is_refused_is_an_outage(
    make_broker: MakeBroker, embedded: OwnRabbit, publishing: Publishing, table: Table, log: LogLines
) -> None:
    broker = make_broker(logger=log)
    rabbit = RabbitBroker(embedded.url.replace("guest:guest", "guest:wrong"), logger=None)
    broker.forwarder("orders", to=rabbit.publisher("orders"))
    await publishing.one(b"")
    await broker.start()
    [line] = await eventually(lambda: log.at_least(logging.WARNING))
    assert "ACCESS_REFUSED" in line
    assert "wrong" not in line
    await _nothing_is_counted(table)


async def test_the_same_idempotency_key_twice_does_not_swap_the_answers(
    broker: OutboxBroker, rabbit: RabbitBroker, rabbit_server: RabbitServer, publishing: Publishing, table: Table
) -> None:
    """Rows with one key can come about by hand; aiormq tells returned messages apart by their message id."""
    limits = {"x_max_length": 3, "x_overflow": "reject-publish"}
    async with QueueBox.declared(rabbit_server, rabbit_server.new_name(), **limits) as mailbox:
        ids = await publishing.many([Outgoing(b"%d" % n) for n in range(6)])
        await table.query("UPDATE outbox SET idempotency_key = 'the same'")
        retry = ConstantRetry(delay_seconds=60)
        to = rabbit.publisher(mailbox.name)
        broker.forwarder("orders", to=to, lanes=1, retry_strategy=retry, count_nacks=True)
        await broker.start()
        await eventually(lambda: _count(table, "attempts_count = 1", 3))
        left = {row.id for row in await table.rows()}
        received = {record.row_id for record in await mailbox.received(3)}
        assert received == set(ids) - left
