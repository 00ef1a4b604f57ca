"""G2, G3, G4, G6: a process dies with a hand-over in flight."""

import time

from faststream.redis import RedisBroker

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.faults.processes import run_python
from integration.faults.proxy import Direction, TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import RedisServer

from .carrying import Box, check_complete, without_repeats

TAKEOVER_SECONDS = 2.0
IN_FLIGHT_AT_MOST = 200
"""Two lanes of a hundred rows."""


async def test_another_process_finishes_the_rows_of_one_that_was_killed(
    make_broker: MakeBroker,
    database_url: str,
    redis: RedisBroker,
    redis_server: RedisServer,
    redis_proxy: TcpProxy,
    box: Box,
    publishing: Publishing,
    table: Table,
) -> None:
    # It shall not give up before it is killed.
    url = redis_server.url_behind(redis_proxy.address, query="socket_timeout=60")
    relay = {"DATABASE_URL": database_url, "REDIS_URL": url, "STREAM": box.name}
    async with run_python("-m", "integration.forwarders.redis.relay", env=relay) as child:
        ids = [await publishing.one(b"it works", key="first")]
        await eventually(table.is_empty, within=10)
        # Transactions still reach Redis, answers do not come back: whatever is sent now stays in flight.
        redis_proxy.black_hole([Direction.TO_CLIENT])
        # So few that no shard has more than one hand-over takes: the rest of such a shard would be free, and held up.
        ids += await publishing.many(Outgoing(b"%d" % n, key=f"key-{n % 100}") for n in range(500))
        await eventually(lambda: _is_taken(table))
        survivor = make_broker()
        survivor.forwarder("orders", to=redis.publisher(stream=box.name))
        await survivor.start()
        await eventually(lambda: _only_held_rows_are_left(table))
        # Each row once: by the survivor, or by the relay that has no answer.
        await eventually(lambda: _holds(box, len(ids)))
        await child.kill()
        killed_at = time.monotonic()
        await eventually(table.is_empty, within=10)
        assert time.monotonic() - killed_at < TAKEOVER_SECONDS
    messages = await box.messages()
    assert 0 < len(messages) - len(without_repeats(messages)) <= IN_FLIGHT_AT_MOST
    check_complete(messages, ids)


async def _holds(box: Box, count: int) -> bool:
    return len(await box.messages()) == count


async def _only_held_rows_are_left(table: Table) -> int:
    free = await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")
    return 0 if free else await table.count()


async def test_a_relay_that_is_killed_under_load_loses_nothing(
    broker: OutboxBroker,
    database_url: str,
    redis: RedisBroker,
    redis_server: RedisServer,
    box: Box,
    publishing: Publishing,
    table: Table,
) -> None:
    relay = {"DATABASE_URL": database_url, "REDIS_URL": redis_server.url, "STREAM": box.name}
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 23}") for n in range(6000))
    async with run_python("-m", "integration.forwarders.redis.relay", env=relay) as child:
        await eventually(lambda: _fewer(table, len(ids)), within=10)
        await child.kill()
    assert not await table.is_empty(), "it was killed under load"
    broker.forwarder("orders", to=redis.publisher(stream=box.name))
    await broker.start()
    await eventually(table.is_empty, within=10)
    messages = await box.messages()
    assert len(messages) - len(ids) <= IN_FLIGHT_AT_MOST
    check_complete(messages, ids)


async def _fewer(table: Table, backlog: int) -> bool:
    return await table.count() < backlog


async def _is_taken(table: Table) -> bool:
    return len(await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")) < await table.count()
