"""A relay in a process of its own: `python -m integration.forwarders.relay`, configured by the environment."""

import asyncio
import logging
import os

from faststream.kafka import KafkaBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_table


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    engine = create_async_engine(os.environ["DATABASE_URL"])
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    kafka = KafkaBroker(os.environ["BOOTSTRAP"], acks="all", logger=None)
    broker.forwarder("orders", to=kafka.publisher(os.environ["TOPIC"]))
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
