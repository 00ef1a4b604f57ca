from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from integration.servers.redis import EmbeddedRedis, RedisServer

from .shop import RedisShop


@pytest.fixture
async def redis_shop(engine: AsyncEngine, redis_server: RedisServer, redis_key: str) -> AsyncIterator[RedisShop]:
    shop = RedisShop(engine, redis_server.url, redis_key)
    yield shop
    await shop.close()


@pytest.fixture
async def own_shop(engine: AsyncEngine, own_redis: EmbeddedRedis) -> AsyncIterator[RedisShop]:
    """A shop before a Redis of its own, which may be flushed and stopped."""
    shop = RedisShop(engine, own_redis.url, "orders")
    yield shop
    await shop.close()
