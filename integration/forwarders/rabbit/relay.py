"""A relay in a process of its own: `python -m integration.forwarders.rabbit.relay`, configured by the environment."""

import asyncio
import logging
import os

from faststream.rabbit import RabbitBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_table


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    engine = create_async_engine(os.environ["DATABASE_URL"])
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    rabbit = RabbitBroker(os.environ["RABBIT_URL"], logger=None)
    broker.forwarder("orders", to=rabbit.publisher(os.environ["QUEUE"]), batch_size=100)
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
