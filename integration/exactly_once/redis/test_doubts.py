"""What was in doubt is decided by the marker; a marker that lacks something is counted, and stops nothing."""

import asyncio
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faststream.redis import RedisBroker, RedisSentinelBroker

from faststream_outbox.forwarders.redis.exact.marker import PREFIX
from integration.exactly_once.relays import relay_process
from integration.exactly_once.shop import until
from integration.exactly_once.test_zombies import END_ITS_TRANSACTIONS
from integration.faults.proxy import Direction, TcpProxy
from integration.servers.process import LOOPBACK
from integration.servers.redis import EmbeddedRedis, EmbeddedSentinel, RedisServer

from .shop import RedisShop
from .test_relaying import PROCESS


@pytest.mark.parametrize("exactly_once", [True, False])
async def test_an_answer_that_is_lost_repeats_nothing(
    redis_shop: RedisShop, redis_server: RedisServer, exactly_once: bool
) -> None:
    address = urlsplit(redis_server.url)
    async with TcpProxy(address.hostname or LOOPBACK, address.port or 6379) as proxy:
        redis = RedisBroker(redis_server.url_behind(proxy.address), logger=None, socket_timeout=0.3)
        broker, forwarder = redis_shop.relay(redis=redis, exactly_once=exactly_once, batch_size=50)
        await redis_shop.publish(100)
        await broker.start()
        await redis_shop.until_empty()
        for _ in range(2):
            proxy.black_hole([Direction.TO_CLIENT])
            await redis_shop.publish(100)
            # The server has executed it, and nobody hears that.
            await until_more_than(redis_shop, redis_shop.published - 100)
            await until(lambda: forwarder.state != "flowing")
            proxy.reset()
            await proxy.restore()
            await redis_shop.until_empty()
        await broker.stop()
    if exactly_once:
        await redis_shop.check()
        assert (await forwarder.status()).maybe_repeated == 0
    else:
        with pytest.raises(AssertionError, match="repeated"):
            await redis_shop.check()


async def until_more_than(shop: RedisShop, count: int) -> None:
    async with asyncio.timeout(10):
        while len(await shop.records()) <= count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("point", "times"),
    [("after the look", 2), ("before the outcomes are written", 1)],
)
async def test_a_process_that_wakes_repeats_nothing(
    redis_shop: RedisShop, database_url: str, point: str, times: int
) -> None:
    await redis_shop.publish(400)
    options = {"bootstrap": redis_shop.bootstrap, "topic": redis_shop.topic, "batch_size": 40}
    async with relay_process(database_url, module=PROCESS, crash=(point, times, signal.SIGSTOP), **options) as zombie:
        await zombie.says("crash")
        # As PostgreSQL does by itself, when it has heard nothing for long enough.
        async with redis_shop.engine.connect() as connection:
            await connection.execute(END_ITS_TRANSACTIONS)
        broker, forwarder = redis_shop.relay(batch_size=50)
        await broker.start()
        await redis_shop.until_empty()
        zombie.send(signal.SIGCONT)
        # It takes part from here on.
        for _ in range(2):
            await redis_shop.publish(100)
            await redis_shop.until_empty()
    await redis_shop.until_empty()
    await redis_shop.check()
    status = await forwarder.status()
    assert (status.maybe_repeated, status.maybe_lost) == (0, 0)


@pytest.mark.parametrize("how", ["flushed", "deleted", "another database"])
async def test_a_marker_that_is_gone_is_counted_and_stops_nothing(
    own_shop: RedisShop, own_redis: EmbeddedRedis, how: str
) -> None:
    broker, forwarder = own_shop.relay(batch_size=50)
    await own_shop.publish(50)
    await broker.start()
    await own_shop.until_empty()
    assert (await forwarder.status()).maybe_lost == 0
    async with own_redis.client() as client:
        if how == "flushed":
            await client.flushall()
        elif how == "deleted":
            await client.delete(*[key async for key in client.scan_iter(f"{PREFIX}*")])
        else:
            await broker.stop()
            own_shop.bootstrap = f"{own_redis.url.removesuffix('/0')}/5"
            broker, forwarder = own_shop.relay(batch_size=50)
            await broker.start()
    await own_shop.publish(200)
    await own_shop.until_empty()
    await own_shop.publish(200)
    await own_shop.until_empty()
    status = await forwarder.status()
    # One for each shard that has rows behind it.
    assert 0 < status.maybe_lost <= 16
    # Only a process that has not sent last cannot know.
    assert status.maybe_repeated == (status.maybe_lost if how == "another database" else 0)
    numbers = [each.value for each in await own_shop.records()]
    assert len(numbers) == len(set(numbers)) == (450 if how == "deleted" else 400)


@pytest.mark.parametrize("has_all", [True, False])
async def test_a_fail_over_is_decided_by_the_marker_of_the_new_primary(
    own_shop: RedisShop, own_redis: EmbeddedRedis, tmp_path: Path, has_all: bool
) -> None:
    for name in ("replica", "sentinel"):
        (tmp_path / name).mkdir()
    with (
        EmbeddedRedis(tmp_path / "replica", replicaof=f"{LOOPBACK} {own_redis.port.number}") as replica,
        EmbeddedSentinel(tmp_path / "sentinel", "shop", own_redis) as sentinel,
    ):
        redis = RedisSentinelBroker(
            sentinels=[(LOOPBACK, sentinel.port.number)], sentinel_master_name="shop", socket_timeout=1.0, logger=None
        )
        broker, forwarder = own_shop.relay(redis=redis, batch_size=50)
        await own_shop.publish(100)
        await broker.start()
        await own_shop.until_empty()
        await synced(own_redis)
        if not has_all:
            await part(replica)
        await own_shop.publish(100)
        await own_shop.until_empty()
        if has_all:
            await synced(own_redis)
            await part(replica)
        own_redis.process.kill()
        async with sentinel.client() as client:
            await client.execute_command("SENTINEL", "REMOVE", "shop")
            await client.execute_command("SENTINEL", "MONITOR", "shop", LOOPBACK, replica.port.number, 1)
        await own_shop.publish(200)
        await own_shop.until_empty()
        await broker.stop()
        own_shop.bootstrap = replica.url
        status = await forwarder.status()
        numbers = [each.value for each in await own_shop.records()]
        assert len(numbers) == len(set(numbers))
        assert status.maybe_repeated == 0
        if has_all:
            await own_shop.check()
            assert status.maybe_lost == 0
        else:
            assert len(numbers) == 300
            assert 0 < status.maybe_lost <= 16


async def synced(primary: EmbeddedRedis) -> None:
    async with primary.client() as client:
        assert await client.wait(1, 5000) == 1


async def part(replica: EmbeddedRedis) -> None:
    """End the replication: from here on, the replica has what it has."""
    async with replica.client() as client:
        await client.replicaof("NO", "ONE")
