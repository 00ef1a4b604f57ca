"""A forwarder that sends exactly once into Redis, where nothing goes wrong, and where a process dies."""

import signal

import pytest

from integration.exactly_once.relays import relay_process

from .shop import RedisShop

PROCESS = "integration.exactly_once.redis.process"

# The first time a process comes there, its shards are new; later, it goes on with what it knows.
POINTS = [
    ("after a shard is begun", 1),
    ("while messages are on their way", 4),
    ("after messages are acknowledged", 6),
    ("before the commit", 1),
    ("after the commit", 2),
]


@pytest.mark.parametrize("holds", ["stream", "list"])
async def test_each_message_is_there_once(redis_shop: RedisShop, holds: str) -> None:
    redis_shop.holds = holds
    for _ in range(2):
        await redis_shop.publish(1000)
        broker, forwarder = redis_shop.relay()
        await broker.start()
        await redis_shop.until_empty()
        status = await forwarder.status()
        assert (status.sent, status.maybe_repeated, status.maybe_lost) == (1000, 0, 0)
        await broker.stop()
    await redis_shop.check()


@pytest.mark.parametrize(("point", "times"), POINTS)
async def test_what_was_on_its_way_when_a_process_died_is_there_once(
    redis_shop: RedisShop, database_url: str, point: str, times: int
) -> None:
    await redis_shop.publish(400)
    options = {"bootstrap": redis_shop.bootstrap, "topic": redis_shop.topic, "batch_size": 40}
    async with relay_process(database_url, module=PROCESS, crash=(point, times, signal.SIGKILL), **options) as relay:
        await relay.says("crash")
        await relay.kill()
    await redis_shop.publish(100)
    broker, forwarder = redis_shop.relay(batch_size=50)
    await broker.start()
    await redis_shop.until_empty()
    await redis_shop.check()
    status = await forwarder.status()
    assert (status.maybe_repeated, status.maybe_lost) == (0, 0)


async def test_without_it_such_a_death_repeats_messages(redis_shop: RedisShop, database_url: str) -> None:
    """So the test above can fail."""
    await redis_shop.publish(100)
    options = {"bootstrap": redis_shop.bootstrap, "topic": redis_shop.topic, "exactly_once": False}
    crash = ("before the outcomes are written", 1, signal.SIGKILL)
    async with relay_process(database_url, module=PROCESS, crash=crash, **options) as relay:
        await relay.says("crash")
        await relay.kill()
    broker, _ = redis_shop.relay(exactly_once=False)
    await broker.start()
    await redis_shop.until_empty()
    with pytest.raises(AssertionError, match="repeated"):
        await redis_shop.check()
