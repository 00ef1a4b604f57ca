"""A process dies at each point of a hand-over; another one goes on."""

import signal

import pytest

from .relays import relay_process
from .shop import Shop

# The first time a process comes there, its positions are new; later, it goes on with what it knows.
POINTS = [
    ("before the take-over", 1),
    ("after the take-over", 1),
    ("after partitions are begun", 2),
    ("after the look", 3),
    ("before a batch is sent", 2),
    ("while a batch is on its way", 1),
    ("while a batch is on its way", 5),
    ("after a batch is acknowledged", 1),
    ("after a batch is acknowledged", 6),
    ("after a batch is read back", 1),
    ("before the outcomes are written", 2),
    ("before the commit", 1),
    ("before the commit", 3),
    ("after the commit", 2),
]

BEHIND_ANOTHER = {"after a batch is read back"}
"""Points that a process comes to only where another one has sent before."""


@pytest.mark.parametrize(("point", "times"), POINTS)
async def test_what_was_on_its_way_when_a_process_died_is_there_once(
    shop: Shop, database_url: str, point: str, times: int
) -> None:
    if point in BEHIND_ANOTHER:
        await shop.publish(100)
        broker, _ = shop.relay()
        await broker.start()
        await shop.until_empty()
        await broker.stop()
    await shop.publish(400)
    crash = (point, times, signal.SIGKILL)
    async with relay_process(
        database_url, bootstrap=shop.bootstrap, topic=shop.topic, batch_size=40, crash=crash
    ) as relay:
        await relay.says("crash")
        await relay.kill()
    await shop.publish(100)
    broker, forwarder = shop.relay(batch_size=50)
    await broker.start()
    await shop.until_empty()
    await shop.check()
    assert (await forwarder.status()).maybe_repeated == 0
