"""How fast rows go; the numbers are printed, and only what a slow machine also reaches is asserted."""

import time

import pytest

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.base import Box
from integration.forwarders.carrying import Publishing

ROWS = 2000


@pytest.mark.parametrize("box", ["nats", "confluent"], indirect=True)
async def test_thousands_of_rows(
    box: Box, broker: OutboxBroker, publishing: Publishing, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    await publishing.many(Outgoing(b"x" * 230, key=f"key-{n}") for n in range(ROWS))
    broker.forwarder("orders", to=box.publisher())
    began = time.monotonic()
    await broker.start()
    await eventually(table.is_empty, within=60)
    rate = ROWS / (time.monotonic() - began)
    with capsys.disabled():
        print(f"\n{box.kind}, {ROWS} rows of 230 bytes, 2 lanes of 500: {rate:,.0f} rows/s")
    assert len(await box.received(ROWS)) == ROWS
    assert rate > 100
