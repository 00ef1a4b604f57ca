"""Pauses that are stored: of a queue, of a key and of a forwarder, for all processes and across restarts."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from faststream.redis import RedisBroker
from sqlalchemy import MetaData, text
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import ConfigError, ForwarderState, OutboxBroker, Outgoing, make_outbox_control_table
from faststream_outbox.admin import Scope
from integration.faults.processes import ChildProcess, run_python
from integration.servers.redis import RedisServer

from .conftest import MakeBroker
from .observing import Inbox, LogLines, Table, Traffic, eventually, watched_machine

WORKER = "integration.broker.worker"
SECONDS = 1.0
"""By then each process that listens knows of a pause."""
POLLED = 1.5 + SECONDS
"""And each that polls."""


@pytest.fixture
async def control_table(engine: AsyncEngine) -> SqlTable:
    table = make_outbox_control_table(MetaData())
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
    return table


@pytest.fixture
def broker(make_broker: MakeBroker, control_table: SqlTable) -> OutboxBroker:
    return make_broker(control_table=control_table)


@pytest.fixture
async def children(database_url: str, control_table: SqlTable) -> AsyncIterator[list[ChildProcess]]:
    """Three processes with a handler each; the last one does not listen."""
    async with AsyncExitStack() as stack:
        base = {"DATABASE_URL": database_url, "HANDLER_SECONDS": "0", "CONTROL_TABLE": control_table.name}
        yield [
            await stack.enter_async_context(
                run_python("-m", WORKER, env={**base, "QUEUE": f"q{number}"} | ({"POLL": "1"} if number == 2 else {}))
            )
            for number in range(3)
        ]


async def publish(
    broker: OutboxBroker, session: AsyncSession, *bodies: int, queue: str, key: str | None = None
) -> None:
    messages = [Outgoing(body, key=key) for body in bodies]
    await broker.publish_batch(*messages, queue=queue, session=session)
    await session.commit()


def began(children: Sequence[ChildProcess], body: int) -> list[bool]:
    return [f"began {body}" in child.lines for child in children]


async def test_a_key_is_paused_in_three_processes_and_in_one_that_starts_meanwhile(
    broker: OutboxBroker, session: AsyncSession, children: list[ChildProcess], database_url: str
) -> None:
    async def publish_everywhere(body: int, key: str) -> None:
        for number in range(3):
            await publish(broker, session, body, queue=f"q{number}", key=key)

    await publish_everywhere(1, "k")
    await eventually(lambda: all(began(children, 1)), within=30)
    await broker.admin.pause(key="k", by="alice", why="a customer asks")
    await asyncio.sleep(POLLED)
    await publish_everywhere(2, "k")
    await publish_everywhere(3, "other")
    await eventually(lambda: all(began(children, 3)), within=30)
    await children[0].kill()
    env = {"DATABASE_URL": database_url, "HANDLER_SECONDS": "0", "CONTROL_TABLE": "outbox_control", "QUEUE": "q0"}
    async with run_python("-m", WORKER, env=env) as reborn:
        await publish(broker, session, 4, queue="q0", key="other")
        await eventually(lambda: "began 4" in reborn.lines, within=30)
        alive = [reborn, *children[1:]]
        assert not any(began(alive, 2))
        async with watched_machine() as machine:
            resumed = time.monotonic()
            assert await broker.admin.resume(key="k", by="alice")
            await eventually(lambda: all(began(alive[:2], 2)), within=30)
        seconds = time.monotonic() - resumed
        print(f"resumed in two processes that listen within {seconds:.2f} s, worst lag {machine.worst_lag:.2f} s")
        assert seconds - machine.worst_lag < SECONDS
        await eventually(lambda: all(began(alive, 2)), within=30)


async def test_three_processes_know_of_a_pause_within_a_second(
    broker: OutboxBroker, session: AsyncSession, children: list[ChildProcess]
) -> None:
    for number in range(3):
        await publish(broker, session, 0, queue=f"q{number}")
    await eventually(lambda: all(began(children, 0)), within=30)
    await broker.admin.pause(queue="q0")
    await broker.admin.pause(queue="q1")
    await asyncio.sleep(SECONDS)
    for number in range(3):
        await publish(broker, session, 1, queue=f"q{number}")
    await eventually(lambda: began(children, 1)[2], within=30)
    await broker.admin.pause(queue="q2")
    await asyncio.sleep(POLLED)
    await publish(broker, session, 2, queue="q2")
    await asyncio.sleep(POLLED)
    assert began(children, 1) == [False, False, True]
    assert began(children, 2) == [False, False, False]
    for number in range(3):
        assert await broker.admin.resume(queue=f"q{number}")
    await eventually(lambda: began(children, 1) == [True] * 3 and began(children, 2)[2], within=30)


async def test_a_queue_that_is_paused_waits_whole_and_others_go_on(
    broker: OutboxBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    @broker.subscriber("orders")
    @broker.subscriber("others")
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.admin.pause(queue="orders", by="alice", why="a bad deploy")
    await broker.start()
    await publish(broker, session, 1, 2, queue="orders")
    await broker.publish(3, queue="orders", activate_in=timedelta(seconds=0.1), session=session)
    await publish(broker, session, 4, queue="others")
    await inbox.wait_for(1)
    await asyncio.sleep(0.5)
    assert inbox.bodies == [4]
    rows = await table.rows()
    assert [(row.attempts_count, row.deliveries_count, row.acquired_token) for row in rows] == [(0, 0, None)] * 3
    await broker.admin.resume(queue="orders")
    await inbox.wait_for(4)
    assert sorted(inbox.bodies) == [1, 2, 3, 4]


async def test_a_pause_ends_by_itself(broker: OutboxBroker, session: AsyncSession, inbox: Inbox) -> None:
    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.admin.pause(queue="orders", until=timedelta(seconds=2))
    began = time.monotonic()
    await broker.start()
    await publish(broker, session, 1, queue="orders")
    async with watched_machine() as machine:
        await inbox.wait_for(1, within=20)
    assert 1.5 < time.monotonic() - began < 2 + SECONDS + machine.worst_lag


async def test_a_paused_queue_and_a_paused_forwarder_ask_for_no_rows(
    broker: OutboxBroker, session: AsyncSession, redis_server: RedisServer, redis_key: str, traffic: Traffic
) -> None:
    @broker.subscriber("handled")
    async def handle(body: int) -> None: ...

    redis = RedisBroker(redis_server.url)
    forwarder = broker.forwarder("sent", to=redis.publisher(list=redis_key), name="to-redis")
    await broker.admin.pause(queue="handled")
    await broker.admin.pause(forwarder="to-redis", by="alice", why="the list is full")
    await broker.start()
    await eventually(lambda: forwarder.state is ForwarderState.PAUSED)
    await publish(broker, session, 1, queue="handled")
    await publish(broker, session, 2, queue="sent")
    await asyncio.sleep(1.0)
    taking = [each for each in traffic.statements if "/* outbox claim */" in each or "/* outbox lock_shards */" in each]
    assert taking == []
    status = await forwarder.status()
    assert (status.state, status.lag_rows) == ("paused", 1)
    [pause] = status.pauses
    assert (pause.scope, pause.who, pause.why) == (Scope(forwarder="to-redis"), "alice", "the list is full")
    assert forwarder.is_paused
    forwarder.resume()
    assert forwarder.is_paused, "this process alone cannot end it"
    await broker.admin.resume(forwarder="to-redis")
    await eventually(lambda: forwarder.state is ForwarderState.FLOWING, within=10)

    async def sent() -> bool:
        return (await forwarder.status()).sent == 1

    await eventually(sent, within=10)


async def test_a_forwarder_all_of_whose_queues_are_paused_is_paused(
    broker: OutboxBroker, session: AsyncSession, redis_server: RedisServer, redis_key: str, table: Table
) -> None:
    redis = RedisBroker(redis_server.url)
    forwarder = broker.forwarder(["a", "b"], to=redis.publisher(list=redis_key))
    await broker.start()
    await eventually(lambda: forwarder.state is ForwarderState.FLOWING, within=10)
    await broker.admin.pause(queue="a")
    await asyncio.sleep(SECONDS)
    await publish(broker, session, 1, queue="a")
    await publish(broker, session, 2, queue="b")

    async def queues() -> list[str]:
        return [row.queue for row in await table.rows()]

    async def only_a() -> bool:
        return await queues() == ["a"]

    await eventually(only_a, within=10)
    assert forwarder.state is ForwarderState.FLOWING
    assert [pause.scope for pause in (await forwarder.status()).pauses] == [Scope(queue="a")]
    await broker.admin.pause(queue="b")
    await eventually(lambda: forwarder.state is ForwarderState.PAUSED)
    await broker.admin.resume(queue="a")
    await eventually(table.is_empty, within=10)


async def test_where_the_table_is_not_there_rows_flow_and_the_log_says_so(
    make_broker: MakeBroker, session: AsyncSession, inbox: Inbox, log: LogLines, engine: AsyncEngine
) -> None:
    table = make_outbox_control_table(MetaData(), "late")
    broker = make_broker(control_table=table, logger=log)

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.start()
    await publish(broker, session, 1, queue="orders")
    await inbox.wait_for(1)
    assert len([line for line in log.at_least(logging.WARNING) if "no such control table" in line]) == 1
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
    await broker.admin.pause(queue="orders")
    await asyncio.sleep(SECONDS)
    await publish(broker, session, 2, queue="orders")
    await asyncio.sleep(0.5)
    assert inbox.bodies == [1]


async def test_what_is_paused_is_unknown_where_the_table_may_not_be_read(
    make_broker: MakeBroker, session: AsyncSession, inbox: Inbox, log: LogLines, engine: AsyncEngine
) -> None:
    """It may be that all is paused: nothing is taken until it is known."""
    view = "CREATE VIEW broken AS SELECT 1 AS id, 1 / 0 AS what"
    async with engine.begin() as connection:
        await connection.execute(text(view))
    broker = make_broker(control_table=make_outbox_control_table(MetaData(), "broken"), logger=log)

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.start()
    await publish(broker, session, 1, queue="orders")
    await eventually(lambda: [line for line in log.at_least(logging.ERROR) if "outbox control table" in line])
    await asyncio.sleep(1.0)
    assert not inbox.bodies


async def test_where_the_control_table_cannot_be_read_it_is_not_ready_and_forwarders_are_paused(
    make_broker: MakeBroker, control_table: SqlTable, engine: AsyncEngine, redis_server: RedisServer, redis_key: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE outbox_control RENAME COLUMN what TO hidden"))
    broker = make_broker(control_table=control_table)
    forwarder = broker.forwarder("sent", to=RedisBroker(redis_server.url).publisher(list=redis_key))
    await broker.start()
    text_of_it = "the control table cannot be read: nothing is taken"
    health = await broker.health()
    assert (health.state, text_of_it in health.not_ready) == ("not ready", True)
    status = await forwarder.status()
    assert (forwarder.state, status.state, status.pauses_known) == ("paused", "paused", False)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE outbox_control RENAME COLUMN hidden TO what"))
    await eventually(lambda: forwarder.state is ForwarderState.FLOWING, within=30)
    assert (await forwarder.status()).pauses_known
    assert text_of_it not in (await broker.health()).problems


@pytest.mark.parametrize("method", ["pause", "resume"])
async def test_without_a_control_table_it_is_said_what_to_do(make_broker: MakeBroker, method: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no control table.*OutboxBroker\(\.\.\., control_table=\.\.\.\)"):
        await getattr(make_broker().admin, method)(queue="orders")
