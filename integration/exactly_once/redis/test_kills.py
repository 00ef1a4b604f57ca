"""Relays to Redis die at random moments under load: each message is there once, and those of a key in order."""

import random

import pytest

from integration.exactly_once.test_kills import LONG_SECONDS, finish, kill_at_random, load

from .shop import RedisShop
from .test_relaying import PROCESS

SECONDS = 5.0


async def test_random_deaths_repeat_nothing(redis_shop: RedisShop, database_url: str) -> None:
    async with load(redis_shop):
        assert await kill_at_random(redis_shop, database_url, SECONDS, random.Random(1), module=PROCESS)
    assert await finish(redis_shop) == 0
    await redis_shop.check()


@pytest.mark.long
async def test_many_random_deaths_repeat_nothing(redis_shop: RedisShop, database_url: str) -> None:
    async with load(redis_shop):
        assert await kill_at_random(redis_shop, database_url, LONG_SECONDS, random.Random(), module=PROCESS) >= 200
    assert await finish(redis_shop) == 0
    await redis_shop.check()
