"""Many forwarders to one Kafka, and many subscribers, cost little while nothing happens."""

import asyncio
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import psutil
from faststream.kafka import KafkaBroker
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from faststream_outbox.forwarders.kafka.lender import MOST_IDLE
from integration.broker.observing import Table, eventually
from integration.forwarders.carrying import Publishing
from integration.servers.kafka import KafkaServer

FORWARDERS = SUBSCRIBERS = 50
IDLE_SECONDS = 3.0
COMMITS = text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")


async def transactions(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(COMMITS)).scalar_one())


async def at_rest(engine: AsyncEngine) -> float:
    """Return the transactions a second, once all have started and come to rest."""
    least = math.inf
    for _ in range(8):
        before, began = await transactions(engine), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        least = min(least, (await transactions(engine) - before) / (time.monotonic() - began))
        if least <= 8:
            break
    return least


def open_connections(kafka_server: KafkaServer) -> int:
    """Count the connections of this process to Kafka."""
    port = int(kafka_server.bootstrap.rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED and each.raddr[1] == port for each in found)


async def left(publishing: Publishing, table: Table, *queues: str) -> float:
    """Publish a row into each queue, and return the seconds until all have left."""
    began = time.monotonic()
    for queue in queues:
        await publishing.one(1, queue=queue)
    await eventually(table.is_empty, within=20)
    return time.monotonic() - began


async def test_many_consumers_at_rest_cost_as_little_as_one(
    make_broker: Callable[..., OutboxBroker],
    observer_engine: AsyncEngine,
    kafka_server: KafkaServer,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker()
    kafka = KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)
    with kafka_server.topic() as topic:
        forwarders = [
            broker.forwarder(f"f{number}", to=kafka.publisher(topic), name=f"f{number}") for number in range(FORWARDERS)
        ]
        for number in range(SUBSCRIBERS):

            @broker.subscriber(f"s{number}")
            async def handle(_body: Any) -> None: ...

        others = open_connections(kafka_server)
        await broker.start()
        await eventually(lambda: all(forwarder.state == "flowing" for forwarder in forwarders), within=20)
        asked = await at_rest(observer_engine)
        print(f"at rest: {asked:.1f} transactions/s, {open_connections(kafka_server)} connections to Kafka")
        # A look or two in each interval, a rescue each 0.7 s, surveys, and what the observer asks. 100 lanes and 50
        # subscribers that looked for themselves asked for about 170.
        assert asked <= 8
        # The first looks may have opened more.
        await eventually(lambda: open_connections(kafka_server) - others <= 2 * MOST_IDLE, within=30)
        alone = [await left(publishing, table, f"f{number}") for number in range(10)]
        print(f"one row leaves after {1000 * statistics.median(alone):.0f} ms")
        # Nobody has polled for it: the first poll comes a second after the last row of its queue.
        assert statistics.median(alone) < 0.5
        assert await left(publishing, table, *(f"f{number}" for number in range(FORWARDERS))) < 10
        await broker.stop()
        assert open_connections(kafka_server) == others
