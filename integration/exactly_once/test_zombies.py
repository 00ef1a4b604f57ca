"""A process is stopped for longer than everybody waits for it, another one goes on, and then it wakes."""

import signal

import pytest
from sqlalchemy import text

from .relays import relay_process
from .shop import Shop

POINTS = [
    ("before the take-over", 1),
    ("after the take-over", 2),
    ("after the look", 2),
    ("before a batch is sent", 1),
    ("before a batch is sent", 3),
    ("after a batch is acknowledged", 1),
    ("before the outcomes are written", 1),
]

END_ITS_TRANSACTIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
)


@pytest.mark.parametrize(("point", "times"), POINTS)
async def test_a_process_that_wakes_repeats_nothing(shop: Shop, database_url: str, point: str, times: int) -> None:
    await shop.publish(400)
    crash = (point, times, signal.SIGSTOP)
    async with relay_process(
        database_url, bootstrap=shop.bootstrap, topic=shop.topic, batch_size=40, crash=crash
    ) as zombie:
        await zombie.says("crash")
        # As PostgreSQL does by itself, when it has heard nothing for long enough.
        async with shop.engine.connect() as connection:
            await connection.execute(END_ITS_TRANSACTIONS)
        broker, forwarder = shop.relay(batch_size=50)
        await broker.start()
        await shop.until_empty()
        zombie.send(signal.SIGCONT)
        # It takes part from here on.
        for _ in range(5):
            await shop.publish(100)
            await shop.until_empty()
    await shop.until_empty()
    await shop.check()
    assert (await forwarder.status()).maybe_repeated == 0
