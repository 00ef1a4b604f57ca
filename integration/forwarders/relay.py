"""A relay in a process of its own: `python -m integration.forwarders.relay KIND URL NAME`, with DATABASE_URL."""

import asyncio
import logging
import os
import sys

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_table

from .boxes import BOXES

BATCH_SIZE = 100


async def main(kind: str, url: str, name: str) -> None:
    logging.basicConfig(level=logging.WARNING)
    engine = create_async_engine(os.environ["DATABASE_URL"])
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    # It shall not give up before it is killed.
    publisher = BOXES[kind].publisher_at(url, name, **BOXES[kind].patient)
    broker.forwarder("orders", to=publisher, batch_size=BATCH_SIZE, send_timeout=60)
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
