"""How fast rows go; the numbers are printed, and only what a slow machine also reaches is asserted."""

import time

import pytest
from faststream.redis import RedisBroker

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.redis import StreamBox
from integration.forwarders.carrying import Publishing

ROWS = 5000


async def test_thousands_of_rows(
    broker: OutboxBroker,
    redis: RedisBroker,
    box: StreamBox,
    publishing: Publishing,
    table: Table,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for start in range(0, ROWS, 1000):
        await publishing.many(Outgoing(b"x" * 230, key=f"key-{start + n}") for n in range(1000))
    broker.forwarder("orders", to=redis.publisher(stream=box.name))
    began = time.monotonic()
    await broker.start()
    await eventually(table.is_empty, within=60)
    rate = ROWS / (time.monotonic() - began)
    with capsys.disabled():
        print(f"\nredis stream, {ROWS} rows of 230 bytes, 2 lanes of 500: {rate:,.0f} rows/s")
    assert len(await box.read()) == ROWS
    assert rate > 1000
