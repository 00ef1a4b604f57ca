"""Takes rows while a snapshot is held, with whichever sources are on its path, and prints how long each time took.

The arguments are the database's URL, the Redis server's, who takes (a forwarder or a subscriber), rows a second, and
seconds. The seconds of each time come out as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from faststream.redis import RedisBroker
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox._store.postgres.store import PostgresStore

DELIVERED = 1_000_000
"""Rows that cannot be cleaned away: half an hour of 500 a second."""

SETTLING_SECONDS = 60.0
"""Until floors are learned: what a process does in its first minute is not what this is about."""

WRITE = text("""
    INSERT INTO outbox (queue, key, idempotency_key, payload)
    SELECT 'orders', 'key' || i % 1000, 'i' || i, '' FROM generate_series(1, CAST(:rows AS integer)) AS i
""")


@asynccontextmanager
async def held_snapshot(engine: AsyncEngine) -> AsyncIterator[None]:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        await connection.execute(text("SELECT count(*) FROM outbox"))
        yield


def watch_takes() -> list[float]:
    """Return a list that gets the seconds of every claim and hand-over, until its rows are here."""
    takes: list[float] = []
    hand_over, claim = PostgresStore.hand_over, PostgresStore.claim

    @asynccontextmanager
    async def timed_hand_over(self: PostgresStore, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        began = time.perf_counter()
        async with hand_over(self, *arguments, **options) as taken:
            takes.append(time.perf_counter() - began)
            yield taken

    async def timed_claim(self: PostgresStore, *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        claimed = await claim(self, *arguments, **options)
        takes.append(time.perf_counter() - began)
        return claimed

    PostgresStore.hand_over = timed_hand_over  # type: ignore[method-assign]
    PostgresStore.claim = timed_claim  # type: ignore[method-assign]
    return takes


async def publish(engine: AsyncEngine, broker: OutboxBroker, rate: float, seconds: float) -> None:
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(began + number / rate - time.monotonic())
        async with AsyncSession(engine) as session, session.begin():
            await broker.publish(b"x", queue="orders", key=f"key{number % 1000}", session=session)


async def measure(url: str, redis_url: str, consumer: str, rate: float, seconds: float) -> list[float]:
    metadata = MetaData()
    outbox_table = make_outbox_table(metadata)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(WRITE, {"rows": DELIVERED})
    async with held_snapshot(engine):
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM outbox"))
        broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
        if consumer == "forwarder":
            broker.forwarder("orders", to=RedisBroker(redis_url, logger=None).publisher(stream=url.rpartition("/")[2]))
        else:

            @broker.subscriber("orders")
            async def handle(body: str) -> None: ...

        takes = watch_takes()
        await broker.start()
        await publish(engine, broker, rate, SETTLING_SECONDS)
        takes.clear()
        await publish(engine, broker, rate, seconds)
        measured = list(takes)
        await broker.stop()
    await engine.dispose()
    return measured


if __name__ == "__main__":
    [url, redis_url, consumer, rate, seconds] = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(url, redis_url, consumer, float(rate), float(seconds)))))
