"""How fast rows go; the numbers are printed, and only what a slow machine also reaches is asserted."""

import time
from typing import NamedTuple

import pytest

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.base import Box
from integration.destinations.received import check_complete

from .carrying import Publishing


class Load(NamedTuple):
    rows: int
    rate: int
    """Rows a second that are reached anywhere."""


LOADS = {
    "rabbit": Load(3000, 50),
    "redis-stream": Load(5000, 1000),
    "nats": Load(2000, 100),
    "confluent": Load(2000, 100),
}
KEYS = 1000


@pytest.mark.parametrize(("box", "load"), LOADS.items(), indirect=["box"], ids=list(LOADS))
async def test_thousands_of_rows(
    *,
    box: Box,
    load: Load,
    broker: OutboxBroker,
    publishing: Publishing,
    table: Table,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids: list[int] = []
    for start in range(0, load.rows, KEYS):
        ids += await publishing.many(Outgoing(b"x" * 230, key=f"key-{n}") for n in range(min(KEYS, load.rows - start)))
    broker.forwarder("orders", to=box.publisher())
    began = time.monotonic()
    await broker.start()
    await eventually(table.is_empty, within=60)
    rate = load.rows / (time.monotonic() - began)
    with capsys.disabled():
        print(f"\n{box.kind}, {load.rows} rows of 230 bytes, 2 lanes of 500: {rate:,.0f} rows/s")
    received = await box.received(load.rows)
    assert len(received) == load.rows
    check_complete(received, ids)
    assert rate > load.rate
