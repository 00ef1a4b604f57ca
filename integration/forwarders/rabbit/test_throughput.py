"""How many rows a second; printed, since no number holds on every machine."""

import time

from faststream.rabbit import RabbitBroker

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.destinations.received import check_complete
from integration.forwarders.carrying import Publishing

ROWS = 3000


async def test_thousands_of_rows(
    broker: OutboxBroker, rabbit: RabbitBroker, mailbox: QueueBox, publishing: Publishing, table: Table
) -> None:
    ids = await publishing.many(Outgoing(b"x" * 230, key=f"key-{n % 1000}") for n in range(ROWS))
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    began = time.monotonic()
    await broker.start()
    await eventually(table.is_empty, within=60)
    seconds = time.monotonic() - began
    print(f"\n{ROWS} rows of 1000 keys in {seconds:.1f} s: {ROWS / seconds:,.0f} rows/s")
    check_complete(await mailbox.received(ROWS), ids)
