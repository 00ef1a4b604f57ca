"""The session's Redis: keys of each test alone, and a server that can be broken and comes back."""

from pathlib import Path

import pytest
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from .process import LOOPBACK
from .redis import EmbeddedRedis, RedisServer


async def test_keys_are_gone_after_their_test(redis_server: RedisServer) -> None:
    async with redis_server.client() as client:
        with redis_server.key() as key:
            await client.set(key, "1")
            await client.set(f"{key}-2", "2")
        assert await client.exists(key, f"{key}-2") == 0


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_keeps_port_and_data(own_redis: EmbeddedRedis, killed: bool) -> None:
    async with own_redis.client(retry=None) as client:
        await client.rpush("kept", *range(100))
    if killed:
        own_redis.process.kill()
    else:
        own_redis.stop()
    async with own_redis.client(retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()
    own_redis.start()
    async with own_redis.client() as client:
        assert await client.llen("kept") == 100


async def test_a_paused_server_answers_late(own_redis: EmbeddedRedis) -> None:
    async with own_redis.client(socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as client:
        own_redis.process.pause()
        with pytest.raises(exceptions.TimeoutError):
            await client.ping()
        own_redis.process.resume()
        assert await client.ping()


async def test_memory_can_run_out(own_redis: EmbeddedRedis) -> None:
    async with own_redis.client() as client:
        await client.config_set("maxmemory", "1")
        with pytest.raises(exceptions.OutOfMemoryError):
            await client.set("a", "b")
        await client.config_set("maxmemory", "0")
        await client.set("a", "b")


async def test_a_replica_is_read_only(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    async with own_redis.client() as client:
        await client.set("a", "b")
    with EmbeddedRedis(tmp_path, replicaof=f"{LOOPBACK} {own_redis.port.number}") as replica:
        async with replica.client() as client:
            assert await client.get("a") == b"b"
            with pytest.raises(exceptions.ReadOnlyError):
                await client.set("a", "c")
