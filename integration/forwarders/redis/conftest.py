from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from faststream.redis import RedisBroker

from integration.destinations.redis import StreamBox
from integration.faults.proxy import TcpProxy
from integration.servers.process import LOOPBACK
from integration.servers.redis import EmbeddedRedis, RedisServer


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisBroker:
    """The destination's broker; nobody connects it."""
    return RedisBroker(redis_server.url, logger=None)


@pytest.fixture
def box(redis_server: RedisServer, redis_key: str) -> StreamBox:
    return StreamBox(redis_server, redis_key)


@pytest.fixture
async def redis_proxy(redis_server: RedisServer) -> AsyncIterator[TcpProxy]:
    """A proxy before the session's Redis."""
    address = urlsplit(redis_server.url)
    async with TcpProxy(address.hostname or LOOPBACK, address.port or 6379) as proxy:
        yield proxy


@pytest.fixture
def proxied_redis(redis_server: RedisServer, redis_proxy: TcpProxy) -> RedisBroker:
    """The destination's broker behind the proxy."""
    return RedisBroker(redis_server.url_behind(redis_proxy.address), logger=None)


@pytest.fixture
def own_box(own_redis: EmbeddedRedis) -> StreamBox:
    return StreamBox(own_redis, "orders")
