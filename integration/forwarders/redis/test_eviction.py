"""A server that may throw away what it has accepted."""

import logging

import pytest
from faststream.redis import RedisBroker

from faststream_outbox import Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import EmbeddedRedis

WARNED = "maxmemory-policy to noeviction"


@pytest.mark.parametrize(
    ("policy", "maxmemory", "where", "lines"),
    [
        ("allkeys-lru", "100mb", "stream", 1),
        ("allkeys-random", "100mb", "list", 1),
        ("allkeys-lru", "0", "stream", 0),
        ("volatile-lru", "100mb", "stream", 0),
        ("noeviction", "100mb", "stream", 0),
        ("allkeys-lru", "100mb", "channel", 0),
    ],
)
async def test_the_log_warns_once_of_a_policy_that_evicts_any_key(
    *,
    policy: str,
    maxmemory: str,
    where: str,
    lines: int,
    make_broker: MakeBroker,
    own_redis: EmbeddedRedis,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    async with own_redis.client() as admin:
        await admin.config_set("maxmemory", maxmemory)
        await admin.config_set("maxmemory-policy", policy)
    broker = make_broker(logger=log)
    publisher = RedisBroker(own_redis.url, logger=None).publisher(**{where: "orders"})
    broker.forwarder("orders", to=publisher, allow_lossy=where == "channel")
    await publishing.many(Outgoing(b"", key=f"key-{n}") for n in range(20))
    await broker.start()
    await eventually(table.is_empty)
    assert len(log.containing(WARNED)) == lines
    assert len(log.at_least(logging.WARNING)) == lines


async def test_a_server_that_does_not_tell_is_used_in_silence(
    make_broker: MakeBroker, own_redis: EmbeddedRedis, publishing: Publishing, table: Table, log: LogLines
) -> None:
    async with own_redis.client() as admin:
        await admin.config_set("maxmemory", "100mb")
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        await admin.execute_command("ACL", "SETUSER", "default", "-info", "-config")
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=RedisBroker(own_redis.url, logger=None).publisher(stream="orders"))
    await publishing.one(b"")
    await broker.start()
    await eventually(table.is_empty)
    assert not log.at_least(logging.WARNING)
