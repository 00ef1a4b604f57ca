"""Relays die at random moments under load; a plain reader finds each message once, and those of a key in order."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from .relays import RelayProcess, relay_process
from .shop import Shop, number_of

SECONDS = 15.0
LONG_SECONDS = 1800.0
RELAYS = 2
BATCH = 40


@contextlib.asynccontextmanager
async def load(shop: Shop) -> AsyncIterator[None]:
    """Publish all the time, a little more than the relays can carry between two deaths."""

    async def publish() -> None:
        while True:
            await shop.publish(BATCH * 3)
            await asyncio.sleep(0.1)

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing


async def kill_at_random(shop: Shop, database_url: str, seconds: float, chance: random.Random, **options: Any) -> int:
    """Run relays, each of which dies within a second of its work; return how many have died."""
    deaths = 0
    until = time.monotonic() + seconds

    async def one() -> None:
        nonlocal deaths
        while time.monotonic() < until:
            options_of_one = {"bootstrap": shop.bootstrap, "topic": shop.topic, "batch_size": BATCH, **options}
            async with relay_process(database_url, **options_of_one) as relay:
                await relay.says("ready")
                await work(relay)
                deaths += 1

    async def work(relay: RelayProcess) -> None:
        await asyncio.sleep(chance.uniform(0.05, 1.0))
        await relay.kill()

    await asyncio.gather(*(one() for _ in range(RELAYS)))
    return deaths


async def finish(shop: Shop, **options: bool) -> int:
    broker, forwarder = shop.relay(**options)
    await broker.start()
    await shop.until_empty(120)
    status = await forwarder.status()
    await broker.stop()
    return status.maybe_repeated


async def test_random_deaths_repeat_nothing(shop: Shop, database_url: str) -> None:
    async with load(shop):
        assert await kill_at_random(shop, database_url, SECONDS, random.Random(1))
    assert await finish(shop) == 0
    await shop.check()


@pytest.mark.long
async def test_many_random_deaths_repeat_nothing(shop: Shop, database_url: str) -> None:
    async with load(shop):
        assert await kill_at_random(shop, database_url, LONG_SECONDS, random.Random()) >= 200
    assert await finish(shop) == 0
    await shop.check()


async def test_without_it_the_same_deaths_repeat_messages(shop: Shop, database_url: str) -> None:
    """So the test above can fail."""
    async with load(shop):
        await kill_at_random(shop, database_url, SECONDS, random.Random(1), exactly_once=False)
    await finish(shop, exactly_once=False)
    records = await shop.records()
    times = Counter(number_of(record) for record in records)
    assert not {*range(shop.published)} - times.keys(), "lost"
    assert max(times.values()) > 1
